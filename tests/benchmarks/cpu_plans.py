"""Predicted beside measured step times of the demo model on this machine's processor.

python -m tests.benchmarks.cpu_plans [--plans N] [--rounds N] [--steps N] [--lab FILE]

Calibrates, plans the demo in as many ways as there are PLANS, trains each with the real trainer's step for a
few steps a round, and prints a Markdown table for docs/planner.md: predicted and measured medians, the worst
error, Kendall's tau, and the regret of the plan that would have been chosen. Leave the machine alone: its
figures mean nothing otherwise. About ten minutes on two cores.
"""

from __future__ import annotations

import argparse
import json
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from tests.clips import real_clips
from vdsgen.ablate.statistics import kendall_tau
from vdsgen.catalog import open_experiment, open_lab, profile_for
from vdsgen.planner.plan import make_plan
from vdsgen.planner.resolve import workload_of
from vdsgen.planner.tables import step_time_of
from vdsgen.render.render import render_plan
from vdsgen.spec.architecture import Vdt
from vdsgen.spec.lab import Lab

ROOT = Path(__file__).parents[2]
DEMO = ROOT / "examples" / "experiments" / "cpu-demo.yaml"
RANKS = 4


class Way(NamedTuple):
    """One way to train the demo: pins of a plan."""

    pipeline: int
    zero: int
    micro_batch: int
    interval: int
    precision: str = "fp32"
    sequence: int = 1

    @property
    def data(self) -> int:
        return RANKS // self.pipeline // self.sequence

    @property
    def name(self) -> str:
        shared = f"x{self.sequence}s" if self.sequence > 1 else ""
        batch = f"mb{self.micro_batch}-i{self.interval}"
        return f"{self.pipeline}x{self.data}{shared}-z{self.zero}-{batch}-{self.precision}"


PLANS = (
    Way(1, 1, 2, 0),
    Way(2, 1, 1, 0),
    Way(4, 0, 1, 0),
    Way(1, 3, 2, 0),
    Way(1, 0, 2, 1),
    Way(2, 0, 4, 0),
    Way(4, 1, 8, 0),
    Way(1, 2, 1, 0),
    Way(2, 1, 2, 1),
    Way(4, 0, 2, 2),
    Way(1, 0, 1, 0),
    Way(2, 0, 1, 0, "bf16"),
    Way(1, 1, 2, 0, "bf16"),
    Way(4, 1, 2, 0, "bf16"),
    Way(1, 3, 1, 1),
    Way(4, 0, 4, 0),
    Way(1, 1, 1, 0, sequence=2),
    Way(2, 0, 1, 0, sequence=2),
    Way(1, 0, 2, 1, sequence=4),
)
"""Pipeline x data (x ranks that share clips) x ZeRO stage x micro-batch x interval x precision, mixed so that
a few of them, too, span what there is."""


class Row(NamedTuple):
    """One plan, predicted and measured. Seconds."""

    way: Way
    predicted: float
    measured: float
    low: float
    high: float
    processor: float
    """Processor time of all ranks in a step, over the cores."""
    parts: dict[str, float]

    @property
    def error(self) -> float:
        return self.predicted / self.measured - 1


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--plans", type=int, default=len(PLANS))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=4, help="timed steps a plan and round")
    parser.add_argument("--lab", type=Path, help="a calibrated lab file; default: calibrate first")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as folder:
        lab = options.lab or calibrated_lab(Path(folder))
        ways = PLANS[: options.plans]
        predictions = render(ways, open_lab(lab), Path(folder) / "plans")
        samples = measure(Path(folder), options.rounds, options.steps)
    cores = len(os.sched_getaffinity(0))
    rows = [row_of(way, predictions[way.name], samples[way.name], cores) for way in ways]
    print_table(rows)


def calibrated_lab(folder: Path) -> Path:
    """A lab file of this machine, measured now."""
    lab = folder / "lab.yaml"
    command = [sys.executable, "-m", "vdsgen", "calibrate", "--ranks", str(RANKS)]
    subprocess.run([*command, "--out", folder / "calibration.yaml", "--lab", lab], check=True)
    return lab


def render(ways: Sequence[Way], lab: Lab, folder: Path) -> dict[str, dict[str, float]]:
    """Writes a rendered directory for each way; the parts of its predicted step."""
    clips = real_clips()
    found = {}
    for way in ways:
        pins = {
            "data.videos": json.dumps(str(clips)),
            "data.workers": 0,  # a step's clips are decoded once, before it is timed
            "training.precision": way.precision,
            "constraints.pipeline_parallel_size": way.pipeline,
            "constraints.data_parallel_size": way.data,
            "constraints.sequence_parallel_size": way.sequence,
            "constraints.zero_stage": way.zero,
            "constraints.micro_batch_size": way.micro_batch,
            "constraints.activation_checkpoint_interval": way.interval,
        }
        experiment = open_experiment(DEMO, [f"{key}={value}" for key, value in pins.items()])
        assert isinstance(experiment.model, Vdt)
        profile = profile_for(experiment.model)
        assert profile is not None
        plan = make_plan(experiment, lab.pools[0], profile)
        directory = folder / way.name
        directory.mkdir(parents=True)
        for name, content in render_plan(plan, experiment).items():
            (directory / name).write_bytes(content)
        found[way.name] = step_time_of(plan, workload_of(experiment, lab.pools[0], profile)).split()._asdict()
    return found


def measure(folder: Path, rounds: int, steps: int) -> dict[str, list[dict[str, float]]]:
    """Trains every rendered plan on RANKS processes, all of them once a round: drift hits all alike."""
    samples: dict[str, list[dict[str, float]]] = {}
    began = time.monotonic()
    for number in range(rounds):
        for name, found in one_round(folder, steps).items():
            samples.setdefault(name, []).extend(found)
        left = (time.monotonic() - began) / (number + 1) * (rounds - number - 1)
        print(f"Round {number + 1} of {rounds} is done; about {left:.0f} s left.", file=sys.stderr)
    return samples


def one_round(folder: Path, steps: int) -> dict[str, list[dict[str, float]]]:
    """Every plan's timed steps."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    out = folder / "times.json"
    environment = {
        **os.environ,
        "WORLD_SIZE": str(RANKS),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "DS_ACCELERATOR": "cpu",
        "OMP_NUM_THREADS": str(max(1, len(os.sched_getaffinity(0)) // RANKS)),
    }
    with (folder / "ranks.log").open("a") as log:
        ranks = [
            subprocess.Popen(
                [sys.executable, "-m", "tests.benchmarks.cpu_plans_rank", str(steps), folder / "plans", out],
                cwd=ROOT,
                env={**environment, "RANK": str(rank), "LOCAL_RANK": str(rank)},
                stdout=log,
                stderr=subprocess.STDOUT,
            )
            for rank in range(RANKS)
        ]
        codes = [rank.wait() for rank in ranks]
    if any(codes):
        sys.exit(f"ranks ended with {codes}:\n{(folder / 'ranks.log').read_text()[-4000:]}")
    result: dict[str, list[dict[str, float]]] = json.loads(out.read_text())
    return result


def row_of(way: Way, parts: dict[str, float], samples: list[dict[str, float]], cores: int) -> Row:
    steps = [sample["step"] for sample in samples]
    low, median, high = statistics.quantiles(steps, n=4, method="inclusive")
    return Row(
        way,
        sum(parts.values()),
        median,
        low,
        high,
        statistics.median(sample["processor"] for sample in samples) / cores,
        parts,
    )


def print_table(rows: Sequence[Row]) -> None:
    head = ("stages x data", "ZeRO", "micro-batch", "interval", "precision", "predicted s", "measured s",
            "quartiles", "error", "busy cores")  # fmt: skip
    print("| " + " | ".join(head) + " |")
    print("|" + "---|" * len(head))
    for row in sorted(rows, key=lambda row: row.measured):
        way = row.way
        cells: tuple[Any, ...] = (
            f"{way.pipeline} x {way.data}", way.zero, way.micro_batch, way.interval, way.precision,
            f"{row.predicted:.3f}", f"{row.measured:.3f}", f"{row.low:.3f}-{row.high:.3f}",
            f"{row.error:+.1%}", f"{row.processor / row.measured:.0%}",
        )  # fmt: skip
        print("| " + " | ".join(str(cell) for cell in cells) + " |")
    print()
    errors = sorted(abs(row.error) for row in rows)
    chosen = min(rows, key=lambda row: row.predicted)
    best = min(rows, key=lambda row: row.measured)
    print(f"{len(rows)} plans: median error {statistics.median(errors):.1%}, worst {errors[-1]:.1%}.")
    tau = kendall_tau([row.predicted for row in rows], [row.measured for row in rows])
    if tau is not None:
        print(f"Kendall's tau {tau:.2f}.")
    regret = chosen.measured / best.measured - 1
    print(f"Regret {regret:.1%}: {chosen.way.name} was predicted fastest, {best.way.name} measured fastest.")
    print(
        "\nParts of the predicted steps, and what ranks spent of the processor, in seconds:\n",
        file=sys.stderr,
    )
    for row in rows:
        shown = " ".join(f"{k.removesuffix('_seconds')}={v:.3f}" for k, v in row.parts.items() if v > 0)
        print(f"{row.way.name:28} processor {row.processor:.3f} {shown}", file=sys.stderr)


if __name__ == "__main__":
    main()
