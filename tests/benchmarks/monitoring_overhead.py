"""What monitoring costs a step: the demo model trained with it and without, turn about, in the same process.

    python -m tests.benchmarks.monitoring_overhead [--steps 60] [--json]

Two cases: one rank, and a pipeline of two stages (ZeRO-1), of vdt-demo on 8 frames of 64 x 64, fp32, four
micro-batches of one clip a step: small ones, for which it costs most. `cpu` is the processor time of a rank,
which other work on the machine hardly changes; `wall` is the clock's. Each share is the median, over pairs of
neighbouring steps, of what the watched one took beyond the other. The alarms' own work on rank 0 is timed by
itself. The table of docs/monitoring.md.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from pathlib import Path

from tests.benchmarks.precision_consistency import batches, config, made_clips
from tests.model.ranks import run_ranks

MICRO_BATCHES = 4


def main() -> None:
    """Prints the table, or JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    found = {
        "one rank": measure(1, arguments.steps),
        "pipeline of two stages": measure(2, arguments.steps),
        "alarms, a step of rank 0": alarms_seconds(),
    }
    if arguments.json:
        print(json.dumps(found, indent=2))
        return
    print("| | step, cpu s | of it monitoring | step, wall s | of it monitoring |\n|---|---|---|---|---|")
    for name in ("one rank", "pipeline of two stages"):
        row = found[name]
        assert isinstance(row, dict)
        print(
            f"| {name} | {row['cpu_seconds']:.3f} | {row['cpu_share']:+.2%} "
            f"| {row['wall_seconds']:.3f} | {row['wall_share']:+.2%} |"
        )
    print(f"\nAlarms on rank 0: {1e3 * float(str(found['alarms, a step of rank 0'])):.2f} ms a step.")


def measure(ranks: int, steps: int) -> dict[str, float]:
    """The rank on which it costs most."""
    answers = run_ranks(__spec__.name if __spec__ else "", ranks, {"steps": steps}, timeout_seconds=3600)
    return max(answers, key=lambda answer: float(answer["cpu_share"]))


def rank(steps: int) -> dict[str, float]:
    """One rank's answer."""
    import os

    from vdsgen.catalog.load import models
    from vdsgen.model.build import build_engine
    from vdsgen.model.latents import SpaceToDepthCodec
    from vdsgen.spec.architecture import Geometry

    model = models()["vdt-demo"].sizes
    geometry = Geometry(frames=8, patches=64, text_tokens=0, latent_height=8, latent_width=8)
    stages = int(os.environ["WORLD_SIZE"])
    ds_config = config("fp32") | {
        "train_batch_size": MICRO_BATCHES,
        "train_micro_batch_size_per_gpu": 1,
        "gradient_accumulation_steps": MICRO_BATCHES,
    }
    if stages > 1:
        middle = (model.depth + 2) // 2
        ds_config["pipeline"] = {
            "stages": 2,
            "partition": [0, middle, model.depth + 2],
            "use_reentrant": False,
        }
    engine = build_engine(ds_config, model, geometry, seed=0)
    codec = SpaceToDepthCodec(8)
    data = batches([codec.encode(clip) for clip in made_clips()], geometry, size=1)
    spent: dict[bool, list[tuple[float, float]]] = {True: [], False: []}
    for step in range(2 * steps + 4):
        engine.instruments.enabled = step % 2 == 0
        cpu, wall = time.process_time(), time.perf_counter()
        engine.train_step(data)
        if engine.instruments.enabled:
            engine.instruments.layers.gradient_squares()
        if step >= 4:
            took = (time.process_time() - cpu, time.perf_counter() - wall)
            spent[engine.instruments.enabled].append(took)
    watched = [statistics.median(column) for column in zip(*spent[True], strict=True)]

    def beyond(column: int) -> float:
        pairs = zip(spent[True], spent[False], strict=True)
        return statistics.median(on[column] / off[column] - 1 for on, off in pairs)

    return {
        "cpu_seconds": watched[0],
        "wall_seconds": watched[1],
        "cpu_share": beyond(0),
        "wall_share": beyond(1),
    }


def alarms_seconds(ranks: int = 8, layers: int = 50, steps: int = 700) -> float:
    """The mean of a step, once all windows are full."""
    import random
    import tempfile

    from vdsgen.model.metrics import StepMetrics
    from vdsgen.model.monitoring.alarms import Place
    from vdsgen.model.monitoring.monitor import Board
    from vdsgen.spec.monitoring import Alarms

    draw = random.Random(0)
    places = {layer: Place(layer, "Block", 0) for layer in range(layers)}
    took = []
    with tempfile.TemporaryDirectory() as folder:
        board = Board(Alarms(), 1.0, Path(folder), 0, 10**9, ranks)
        for step in range(1, steps + 1):
            held = [10**9 + draw.randrange(10**6) for _ in range(ranks)]
            metrics = StepMetrics(
                step=step, loss=draw.gauss(1, 0.1), grad_norm=draw.gauss(1, 0.1), loss_scale=512.0,
                learning_rate=1e-4, step_seconds=1.0, data_seconds=0.0, samples_per_second=1.0,
                peak_memory_bytes=held, held_memory_bytes=held, overflow=False,
            )  # fmt: skip
            squares = [draw.random() for _ in range(layers)]
            began = time.perf_counter()
            board.check(metrics, squares, places, None, None, bad=False, skipped=False, scale=512.0)
            took.append(time.perf_counter() - began)
    return statistics.mean(took[-100:])


if __name__ == "__main__":
    if len(sys.argv) == 1 and not sys.stdin.isatty() and (job := sys.stdin.read()):
        print(flush=True)
        print(json.dumps(rank(**json.loads(job))), flush=True)
    else:
        main()
