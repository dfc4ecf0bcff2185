"""How planning grows with the number of GPUs: `python -m tests.benchmarks.plan_growth --out FILE.json`.

Whole processes (`vdsgen plan`, cold), and the search alone within one process, with the candidates that it
decided: all of them, those whose partitions were timed among them. Draws docs/images/plan_growth.svg with
`--plot`. Needs matplotlib only for that.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
EXPERIMENT = ROOT / "examples/experiments/vdt-14b.yaml"
GPUS = (4, 8, 16, 32, 64, 128, 256, 512, 1024, 4096, 16_384, 100_000)
PER_NODE = 8
LEAST_BATCH = 32
"""As in the example; larger pools have a clip for each GPU."""
RUNS = 5
LAB = """\
pools:
  - name: growth
    gpu: a100-80gb-sxm
    nodes: {nodes}
    gpus_per_node: {per_node}
    intra_node: nvlink-3
    inter_node: infiniband-hdr
    host_memory_gib: 1024
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, help="JSON file to write; standard output without it")
    parser.add_argument("--plot", type=Path, help="picture to draw")
    parser.add_argument("--runs", type=int, default=RUNS, help="of each process; medians are shown")
    parser.add_argument("--gpus", type=int, nargs="*", default=GPUS)
    options = parser.parse_args()
    rows = []
    for gpus in options.gpus:
        rows.append(measured(gpus, options.runs))
        print(line(rows[-1]), file=sys.stderr)
    text = json.dumps({"model": "vdt-14b", "gpu": "a100-80gb-sxm", "rows": rows}, indent=1) + "\n"
    if options.out is None:
        print(text, end="")
    else:
        options.out.write_text(text, encoding="utf-8")
    if options.plot is not None:
        plot(rows, options.plot)


def measured(gpus: int, runs: int) -> dict[str, Any]:
    """Medians for one size of the pool."""
    with tempfile.TemporaryDirectory() as folder:
        lab, experiment = Path(folder, "lab.yaml"), Path(folder, "experiment.yaml")
        per_node = min(gpus, PER_NODE)
        lab.write_text(LAB.format(nodes=gpus // per_node, per_node=per_node), encoding="utf-8")
        batch = max(LEAST_BATCH, gpus)
        text = EXPERIMENT.read_text(encoding="utf-8")
        experiment.write_text(
            text.replace("global_batch_size: 32", f"global_batch_size: {batch}"), encoding="utf-8"
        )
        command = [sys.executable, "-m", "vdsgen", "plan", str(experiment), "--lab", str(lab)]
        outcomes = [_process(command) for _ in range(runs)]
        alone = [_search(lab, experiment) for _ in range(runs)]
    decided, timed, fits = alone[0][1:]
    seconds = statistics.median(one[0] for one in alone)
    return {
        "gpus": gpus,
        "global_batch_size": batch,
        "process_seconds": round(statistics.median(one[0] for one in outcomes), 3),
        "process_cpu_seconds": round(statistics.median(one[1] for one in outcomes), 3),
        "search_cpu_seconds": round(seconds, 3),
        "decided": decided,
        "timed": timed,
        "fits": fits,
        "decided_per_second": round(decided / seconds),
    }


def _process(command: list[str]) -> tuple[float, float]:
    """(wall, processor) seconds of one process; 3 is an answer too: nothing fits."""
    start, before = time.perf_counter(), os.times()
    done = subprocess.run(command, cwd=ROOT, capture_output=True, check=False)
    assert done.returncode in (0, 3), done.stderr.decode()
    after = os.times()
    used = after.children_user + after.children_system - before.children_user - before.children_system
    return time.perf_counter() - start, used


def _search(lab: Path, experiment: Path) -> tuple[float, int, int, bool]:
    """(processor seconds, candidates decided, partitions timed, whether any fits), nothing remembered."""
    from vdsgen.catalog.inputs import open_inputs
    from vdsgen.cli.profiles import find_profile
    from vdsgen.planner.objective import best_for_objective
    from vdsgen.planner.resolve import workload_of

    opened, resolved = open_inputs(lab, experiment)
    workload = workload_of(resolved, opened.pools[0], find_profile(resolved))
    start = time.process_time()
    found = best_for_objective(workload)
    return time.process_time() - start, found.candidates, found.timed, bool(found.ranked)


def line(row: dict[str, Any]) -> str:
    """One row for people."""
    return (
        f"{row['gpus']:>7} GPUs: plan {row['process_seconds']:.2f} s ({row['process_cpu_seconds']:.2f} s of "
        f"processor), search {row['search_cpu_seconds']:.3f} s, {row['decided']} candidates decided, "
        f"{row['timed']} partitions timed, {row['decided_per_second']:,} candidates/s"
    )


def plot(rows: list[dict[str, Any]], path: Path) -> None:
    """Seconds over GPUs, both logarithmic."""
    import matplotlib

    matplotlib.use("svg")
    matplotlib.rcParams["svg.hashsalt"] = "vdsgen"
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(7, 4))
    gpus = [row["gpus"] for row in rows]
    axes.loglog(gpus, [row["process_seconds"] for row in rows], marker="o", label="vdsgen plan, cold")
    axes.loglog(gpus, [row["search_cpu_seconds"] for row in rows], marker="s", label="its search")
    axes.set(xlabel="GPUs", ylabel="seconds", title="vdt-14b on nodes of eight A100 80GB")
    axes.grid(visible=True, which="both", alpha=0.3)
    axes.legend()
    figure.tight_layout()
    figure.savefig(path, metadata={"Date": None})


if __name__ == "__main__":
    main()
