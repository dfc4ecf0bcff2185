"""This planner beside what else plans on a processor: DeepSpeed's memory estimators, and Galvatron's search.

    python -m tests.benchmarks.peers --galvatron SOURCE --python PYTHON --out docs/measured/peers.json

SOURCE and PYTHON are an unpacked `hetu-galvatron` and an interpreter with numpy and scipy for it
(docs/peers.md says how to get both); without them only the estimators are compared. Each planner is asked for
the same models on the same labs, in turn, in this run; times are medians of whole processes and of
searches alone. Writes the figures, and the tables of docs/peers.md.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

from tests.benchmarks.peers_inputs import workload_for
from tests.cost.matrix_predictions import compared, stage_sizes
from vdsgen.cost.settings import Settings
from vdsgen.files import write_atomically
from vdsgen.planner.numerics import accumulation_dtype
from vdsgen.planner.plan_settings import settings_of
from vdsgen.planner.space import bucket_elements
from vdsgen.planner.words import settings_words
from vdsgen.planner.workload import Workload
from vdsgen.spec.plan import Plan
from vdsgen.units import GIB

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "peers.md"
MARKER = "<!-- What follows is written by: python -m tests.benchmarks.peers -->\n"
CASES = (
    ("article-1.2b", "four-16gb"),
    ("article-1.5b", "four-24gb"),
    ("article-2.1b", "eight-24gb"),
    ("vdt-14b", "sixteen-80gb"),
)
RUNS = 5


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--galvatron", type=Path, help="folder of its sources")
    parser.add_argument("--python", default=sys.executable, help="interpreter that has numpy and scipy")
    parser.add_argument("--out", type=Path, required=True)
    asked = parser.parse_args()
    figures = {
        "estimators": estimators(),
        "searches": []
        if asked.galvatron is None
        else list(searches(asked.galvatron.resolve(), asked.python)),
    }
    write_atomically(asked.out, (json.dumps(figures, indent=2) + "\n").encode())
    write_atomically(PAGE, page(PAGE.read_text(), figures).encode())


def estimators() -> list[dict[str, Any]]:
    """Model states of ZeRO-2 and ZeRO-3 engines: estimated by DeepSpeed, predicted here, measured."""
    from deepspeed.runtime.zero.stage3 import estimate_zero3_model_states_mem_needs
    from deepspeed.runtime.zero.stage_1_and_2 import estimate_zero2_model_states_mem_needs

    rows = []
    for one in compared():
        settings = one.case.settings
        if settings.zero_stage < 2 or settings.offload_optimizer != "none" or settings.dtype == "fp32":
            continue
        sizes = stage_sizes(0, 16)
        gpus = {"num_gpus_per_node": settings.data_parallel_size, "num_nodes": 1}
        if settings.zero_stage == 2:
            _, estimate = estimate_zero2_model_states_mem_needs(sizes.parameters, cpu_offload=False, **gpus)
        else:
            _, estimate, _ = estimate_zero3_model_states_mem_needs(
                sizes.parameters, sizes.largest_parameter, cpu_offload=False, cpu_offload_params=False, **gpus
            )
        rows.append(
            {
                "case": one.place,
                "estimated_bytes": estimate,
                "predicted_states_bytes": one.predicted.states,
                "measured_states_bytes": one.measured.states,
                "predicted_peak_bytes": one.predicted.peak,
                "measured_peak_bytes": one.measured.peak,
            }
        )
    return rows


def searches(galvatron: Path, python: str) -> Iterator[dict[str, Any]]:
    """Each case: both planners' answers, and what each took."""
    for experiment, lab in CASES:
        paths = f"examples/experiments/{experiment}.yaml", f"examples/labs/{lab}.yaml"
        ours, theirs, plan, found = [], [], {}, {}
        for _ in range(RUNS):
            began = time.perf_counter()
            plan = _json(sys.executable, "-m", "vdsgen", "plan", paths[0], "--lab", paths[1], "--json")
            ours.append(time.perf_counter() - began)
            began = time.perf_counter()
            found = _json(python, "-m", "tests.benchmarks.peers_galvatron", str(galvatron), *paths)
            found["process_seconds"] = time.perf_counter() - began
            theirs.append(found)
        on = workload_for(*(ROOT / path for path in paths))
        clips = on.experiment.training.global_batch_size
        yield {
            "case": f"{experiment} on {lab}",
            "vdsgen": {
                "process_seconds": statistics.median(ours),
                "candidates": plan["search"]["candidates"],
                "step_seconds": plan["predicted"]["step_seconds"],
                "peak_bytes": max(stage["memory"]["peak_bytes"] for stage in plan["stages"]),
                "plan": settings_words(settings_of(Plan.model_validate_json(json.dumps(plan)))),
            },
            "galvatron": {
                "process_seconds": statistics.median(one["process_seconds"] for one in theirs),
                "search_seconds": statistics.median(one["seconds"] for one in theirs),
                "strategies_costed": found["strategies_costed"],
                "programs_solved": found["programs_solved"],
                "own_step_seconds": clips / found["own_samples_per_second"],
                **as_deepspeed(on, found["config"]),
            },
            "capacity_bytes": on.capacity_bytes,
        }


def as_deepspeed(on: Workload, config: dict[str, Any]) -> dict[str, Any]:
    """Its answer as DeepSpeed would run it, in this project's figures.

    ZeRO-2 in a pipeline, which DeepSpeed refuses, becomes ZeRO-1. A stage checkpoints as many of its blocks,
    the first ones.
    """
    stages = config["pp_deg"]
    data = on.pool.world_size // stages
    steps = config["chunks"]
    sharded = "1" in config["dp_types_enc"].split(",")
    zero = 1 if stages > 1 else 3 if sharded else 2
    per_stage = [int(layers) for layers in config["pp_division"].split(",")]
    boundaries = [0]
    for layers in per_stage:
        boundaries.append(boundaries[-1] + layers)
    checkpointed = [int(flag) for flag in config["checkpoint"].split(",")]
    first = on.is_block.index(True)
    intervals = tuple(int(any(checkpointed[a:b])) for a, b in pairwise(boundaries))
    plain = tuple(b - a - sum(checkpointed[a:b]) for a, b in pairwise(boundaries))
    partition = [0, *(first + boundary for boundary in boundaries[1:-1]), on.layers]
    bucket = bucket_elements(on)
    settings = Settings(
        pipeline_parallel_size=stages,
        data_parallel_size=data,
        zero_stage=zero,
        micro_batch_size=on.experiment.training.global_batch_size // data // steps,
        gradient_accumulation_steps=steps,
        activation_checkpoint_interval=0,
        dtype="bf16",
        gradient_accumulation_dtype=accumulation_dtype(on.experiment.training, "bf16", zero),
        reduce_bucket_elements=bucket,
        allgather_bucket_elements=bucket,
    ).with_intervals(intervals, tuple(n if k else 0 for n, k in zip(plain, intervals, strict=True)))
    peaks = [
        on.memory(settings, stage, start, stop).peak_bytes
        for stage, (start, stop) in enumerate(pairwise(partition))
    ]
    some = sum(checkpointed)
    return {
        "plan": f"pipeline {stages} x data {data}, ZeRO-{zero}, micro-batch {settings.micro_batch_size} x "
        f"{steps}, {some} of {len(checkpointed)} blocks checkpointed",
        "step_seconds": on.times.step(settings, partition).step_seconds,
        "peak_bytes": max(peaks),
    }


def _json(*command: str) -> dict[str, Any]:
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


def page(text: str, figures: dict[str, Any]) -> str:
    """The page, its tables made anew."""
    head, marker, _ = text.partition(MARKER)
    assert marker, f"{PAGE.name} has lost its marker"
    return head + marker + "\n" + "\n".join([*_states_table(figures), *_search_table(figures)]) + "\n"


def _states_table(figures: dict[str, Any]) -> Iterator[str]:
    yield "## Model states: DeepSpeed's estimators"
    yield ""
    yield "| engine | estimated / measured | predicted here / measured |"
    yield "|---|---|---|"
    rows = figures["estimators"]
    for zero in ("zero2", "zero3"):
        chosen = [row for row in rows if zero in row["case"]]
        cells = []
        for key in ("estimated_bytes", "predicted_states_bytes"):
            ratios = sorted(row[key] / row["measured_states_bytes"] for row in chosen)
            cells.append(f"{statistics.median(ratios):.2f} ({ratios[0]:.2f} to {ratios[-1]:.2f})")
        yield f"| ZeRO-{zero[-1]}, {len(chosen)} engines | {cells[0]} | {cells[1]} |"
    yield ""


def _search_table(figures: dict[str, Any]) -> Iterator[str]:
    if not figures["searches"]:
        return
    yield "## Searches"
    yield ""
    yield "| model and lab | planner | whole process | plan | step | fullest GPU |"
    yield "|---|---|---|---|---|---|"
    for case in figures["searches"]:
        capacity = case["capacity_bytes"] / GIB
        for name in ("vdsgen", "galvatron"):
            one = case[name]
            peak = one["peak_bytes"] / GIB
            over = "" if one["peak_bytes"] <= case["capacity_bytes"] else ", does not fit"
            yield (
                f"| {case['case']} | {name} | {one['process_seconds']:.2f} s | {one['plan']} | "
                f"{one['step_seconds']:.3g} s | {peak:.1f} of {capacity:.0f} GiB{over} |"
            )
    yield ""
    yield (
        "| model and lab | vdsgen: candidates | a second, start included | Galvatron: strategies costed, "
        "programs solved | its search alone |"
    )
    yield "|---|---|---|---|---|"
    for case in figures["searches"]:
        ours, theirs = case["vdsgen"], case["galvatron"]
        rate = ours["candidates"] / ours["process_seconds"]
        yield (
            f"| {case['case']} | {ours['candidates']:,} | {rate:,.0f} | "
            f"{theirs['strategies_costed']}, {theirs['programs_solved']} | {theirs['search_seconds']:.2f} s |"
        )


if __name__ == "__main__":
    main()
