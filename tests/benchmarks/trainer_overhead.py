"""Samples a second of the pipeline trainer beside a plain PyTorch loop and Accelerate, on the same cores.

    python -m tests.benchmarks.trainer_overhead [--rounds N] [--steps N] [--micro-batches M]

One Wan transformer of diffusers, fp32, AdamW, the same global batch, two processes of one thread each: as two
pipeline stages under the engine that training uses; as two data-parallel copies under
DistributedDataParallel; and as two under Accelerate. The three take turns, `rounds` times, each in processes
of its own. Printed: medians over all steps but each round's first two, ratios, and how much of the pipeline's
time its schedule does not explain: the bubble of 1F1B with the measured times of each stage's forwards and
backwards, simulated as plans simulate it.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tests.forks.start import free_port
from tests.model.ranks import rank_environment

RANKS = 2
CONTENDERS = ("pipeline", "plain PyTorch", "Accelerate")
WARM_UP_STEPS = 2


def measured(contender: str, steps: int, micro_batches: int) -> list[dict[str, Any]]:
    """What each rank says of its steps."""
    port = free_port()
    with tempfile.TemporaryDirectory() as folder:
        processes, answers = [], []
        for rank in range(RANKS):
            answer = Path(folder) / f"{rank}.json"
            command = [sys.executable, "-m", "tests.benchmarks.trainer_overhead_rank"]
            command += [contender, str(steps), str(micro_batches), str(answer)]
            environment = {**_environment(), **rank_environment(rank, RANKS, port)}
            processes.append(
                subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=sys.stderr)
            )
            answers.append(answer)
        codes = [process.wait() for process in processes]
        if any(codes):
            raise SystemExit(f"{contender} failed")
        return [json.loads(answer.read_text()) for answer in answers]


def _environment() -> dict[str, str]:
    return {**os.environ, "OMP_NUM_THREADS": "1", "DS_ACCELERATOR": "cpu", "LOCAL_SIZE": str(RANKS)}


def bubble_of(ranks: Sequence[dict[str, Any]], micro_batches: int) -> float:
    """Share of a step that stages wait for one another, on average: of 1F1B with the median forward and
    backward of each stage."""
    forward = [statistics.median(rank["forward_seconds"]) for rank in ranks]
    backward = [statistics.median(rank["backward_seconds"]) for rank in ranks]
    busy = micro_batches * (sum(forward) + sum(backward)) / len(ranks)
    return 1 - busy / schedule_seconds(forward, backward, micro_batches)  # type: ignore[no-any-return]


def schedule_seconds(forward: Sequence[float], backward: Sequence[float], micro_batches: int) -> float:
    """Length of 1F1B (DeepSpeed's TrainSchedule) with free transfers."""
    stages = len(forward)
    done: dict[tuple[str, int, int], float] = {}
    orders = []
    for stage in range(stages):
        ahead = min(stages - stage, micro_batches)
        order = [("f", micro) for micro in range(ahead)]
        for micro in range(micro_batches):
            order.append(("b", micro))
            if ahead + micro < micro_batches:
                order.append(("f", ahead + micro))
        orders.append(order)
    clocks, places = [0.0] * stages, [0] * stages
    while any(place < len(order) for place, order in zip(places, orders, strict=True)):
        for stage in range(stages):
            while places[stage] < len(orders[stage]):
                kind, micro = orders[stage][places[stage]]
                neighbour = stage - 1 if kind == "f" else stage + 1
                needed = (kind, neighbour, micro)
                if 0 <= neighbour < stages and needed not in done:
                    break
                begin = max(clocks[stage], done.get(needed, 0.0))
                clocks[stage] = begin + (forward if kind == "f" else backward)[stage]
                done[kind, stage, micro] = clocks[stage]
                places[stage] += 1
    return max(clocks)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=6)
    parser.add_argument("--micro-batches", type=int, default=16)
    given = parser.parse_args()
    seconds: dict[str, list[float]] = {name: [] for name in CONTENDERS}
    bubbles = []
    for turn in range(given.rounds):
        for name in CONTENDERS[turn % 3 :] + CONTENDERS[: turn % 3]:
            ranks = measured(name, WARM_UP_STEPS + given.steps, given.micro_batches)
            steps = [
                max(of_ranks) for of_ranks in zip(*(rank["step_seconds"] for rank in ranks), strict=True)
            ]
            seconds[name] += steps[WARM_UP_STEPS:]
            if name == "pipeline":
                bubbles.append(bubble_of(ranks, given.micro_batches))
            print(f"round {turn + 1}, {name}: {statistics.median(steps[WARM_UP_STEPS:]):.3f} s", flush=True)
    medians = {name: statistics.median(found) for name, found in seconds.items()}
    bubble = statistics.median(bubbles)
    print(f"\n{given.micro_batches} samples a step, {RANKS} processes of one thread each")
    for name, median in medians.items():
        print(f"  {name:14} {median:7.3f} s a step  {given.micro_batches / median:6.2f} samples/s")
    print(f"  simulated bubble of the pipeline: {bubble:.1%}")
    for name in CONTENDERS[1:]:
        beyond = medians["pipeline"] * (1 - bubble) / medians[name] - 1
        ratio = medians[name] / medians["pipeline"]
        print(f"  pipeline / {name}: {ratio:.3f} of its samples/s; beyond the bubble {beyond:+.1%}")


if __name__ == "__main__":
    main()
