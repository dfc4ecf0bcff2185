"""The article's claims that a plan alone does not answer: the square-root rule, the pipeline's efficiency and
the comparison with 64 GPUs. Figures measured on a processor come from docs/measured/article_claims.json
(`python -m tests.benchmarks.article_claims`), the others from the cost model.
"""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

from vdsgen.catalog.profiles import profile_for
from vdsgen.cost.schedule import StageTimes, simulate
from vdsgen.cost.settings import Settings
from vdsgen.planner.plan import make_plan
from vdsgen.planner.plan_settings import settings_of
from vdsgen.planner.resolve import workload_of
from vdsgen.planner.workload import Workload
from vdsgen.spec.architecture import Vdt
from vdsgen.spec.rendered import Rendered
from vdsgen.units import GIB

FOLDER = Path(__file__).parent.parent / "docs/measured"
SQUARE_ROOT_INTERVAL = 7
"""Of 48 layers."""
BASELINE_NODES = 8
"""64 GPUs are eight of the article's servers of eight."""

Row = tuple[str, str, str]


@cache
def measured() -> dict[str, Any]:
    found: dict[str, Any] = json.loads((FOLDER / "article_claims.json").read_text())
    return found


def unet_rows() -> list[Row]:
    """A1 on the UNet that has this size: Stable Video Diffusion's (`python -m tests.benchmarks.svd_unet`)."""
    clips = json.loads((FOLDER / "svd_unet.json").read_text())
    parameters = clips[0]["parameters"]
    saved = "; ".join(
        f"{clip['saved_bytes'] / GIB:.1f} GiB for {clip['frames']} frames of {clip['height']} × {clip['width']}"
        for clip in clips
    )
    return [
        (
            "A1",
            "(the same of Stable Video Diffusion's UNet)",
            f"{16 * parameters / 1e9:.1f} GB of states for {parameters:,} parameters; forward leaves for backward, "
            f"traced from diffusers' UNetSpatioTemporalConditionModel in half precision: {saved}",
        )
    ]


def workload(rendered: Rendered) -> Workload:
    model = rendered.experiment.model
    assert isinstance(model, Vdt)
    profile = profile_for(model)
    assert profile is not None
    return workload_of(rendered.experiment, rendered.plan.inputs.pool, profile)


def square_root_rows(plan_of_48_blocks: Rendered) -> list[Row]:
    """A3, traced at the article's size and measured on a processor at a small one."""
    known = workload(plan_of_48_blocks)
    settings = settings_of(plan_of_48_blocks.plan)._replace(
        pipeline_parallel_size=1,
        sequence_parallel_size=1,
        tensor_parallel_size=1,
        gradient_accumulation_steps=1,
        micro_batch_size=1,
    )
    none, rule, every = (_activations(known, settings, n) for n in (0, SQUARE_ROOT_INTERVAL, 1))
    more = _seconds(known, settings, SQUARE_ROOT_INTERVAL) / _seconds(known, settings, 0) - 1
    runs = {run["interval"]: run for run in measured()["checkpointing"]}
    small, small_rule, small_every = (runs[n] for n in (0, SQUARE_ROOT_INTERVAL, 1))
    return [
        (
            "A3",
            "√n rule: 48 layers, about 7 checkpoints: 85 % less activation memory",
            f"{_less(rule, none)} at 48 blocks with a checkpoint every {SQUARE_ROOT_INTERVAL} (traced); every "
            f"block is better still, {_less(every, none)}: what a checkpoint holds is far less than what a block "
            "saves, so the rule's balance of the two lies at one block. Measured with DeepSpeed on a processor at "
            f"width 128: {_less(small_rule['activations_bytes'], small['activations_bytes'])}, and "
            f"{_less(small_every['activations_bytes'], small['activations_bytes'])} with every block",
        ),
        (
            "A3",
            "… for 33 % more time",
            f"{more:.0%} more predicted: a forward is a third of forward and backward where both are matrix "
            "products, and less where attention's backward and element-wise work weigh; measured on the processor: "
            f"{small_rule['step_seconds'] / small['step_seconds'] - 1:+.0%}",
        ),
    ]


def _less(one: float, other: float) -> str:
    return f"{1 - one / other:.1%} less"


def _activations(known: Workload, settings: Settings, interval: int) -> int:
    settings = settings.with_interval(interval)
    return known.memory(settings, 0, 0, known.layers).activations_bytes


def _seconds(known: Workload, settings: Settings, interval: int) -> float:
    settings = settings.with_interval(interval)
    return sum(known.times.layer_seconds(settings))


def pipeline_rows() -> list[Row]:
    """A8: the schedule simulated, and two stages measured on two cores."""
    stages = [StageTimes(1.0, 2.0)] * 2
    simulated = {n: 1 - simulate(stages, [0.0], n).bubble_fraction for n in (4, 8, 16)}
    runs = measured()["pipeline"]
    best = ", ".join(f"{run['efficiency']:.0%} at {run['micro_batches']}" for run in runs)
    ideal = ", ".join(f"{share:.0%} at {count}" for count, share in simulated.items())
    return [
        (
            "A8",
            "micro-batching brings pipeline efficiency to 85-90 %",
            f"two equal stages: {ideal} micro-batches a step (1F1B, simulated instruction by instruction); `plan` "
            f"prints the bubble. Measured with DeepSpeed, two stages on two cores against one process on one: "
            f"{best}",
        )
    ]


def scale_rows(pinned: Rendered, free: Rendered) -> list[Row]:
    """A11: the same experiment on eight such servers, planned as well as on one."""
    one = free.plan.inputs.pool
    many = one.model_copy(update={"nodes": BASELINE_NODES, "inter_node": "infiniband-hdr", "hosts": None})
    experiment = free.experiment.model_copy(
        update={"training": free.experiment.training.model_copy(update={"global_batch_size": 64})}
    )
    profile = workload(free).profile
    small = make_plan(experiment, one, profile).predicted.samples_per_second
    large = make_plan(experiment, many, profile).predicted.samples_per_second
    article = pinned.plan.predicted.samples_per_second
    return [
        (
            "A11",
            "2.1 B on 8 × 24 GB, 4-way pipeline: 78 % of a 64-GPU baseline's throughput",
            f"fits, {article:.2f} samples/s with the article's choices. Eight such servers on InfiniBand HDR are "
            f"predicted to reach {large:.1f} samples/s (batch 64), one of them {small:.2f}, that is "
            f"{small / large:.0%} for an eighth of the GPUs. So 78 % says how badly that baseline scaled, to "
            f"{1 / (8 * 0.78):.0%} of linear, not how well eight GPUs can do",
        )
    ]
