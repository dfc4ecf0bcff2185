"""Run directories as the trainer leaves them, of the committed demo's plan, without training."""

from __future__ import annotations

import json
import math
import shutil
from dataclasses import asdict
from pathlib import Path
from typing import Any

from vdsgen.spec.heartbeat import Beat, beat_file
from vdsgen.spec.rendered import read_rendered

DEMO = Path(__file__).resolve().parents[2] / "examples" / "rendered" / "cpu-demo@cpu-demo"
REAL = Path(__file__).parent / "data" / "demo-video"
"""What a real run of four ranks left: 24 steps in bf16 on a processor, one rank killed after step 13, two
steps traced. Without its checkpoints, and with names of files and hosts changed."""
MIB = 1024**2
ACTIVITIES = ("forward", "backward", "bubble", "transfer", "reduce", "gather", "optimizer", "data", "other")


def metrics_line(step: int, **changes: Any) -> dict[str, Any]:
    """As model/metrics.py writes it: losses fall from 1.3 towards 0.8."""
    seconds = {f"{name}_seconds": 0.1 + 0.01 * place for place, name in enumerate(ACTIVITIES)}
    values: dict[str, Any] = {
        "step": step,
        "loss": 0.8 + 0.5 * math.exp(-step / 20),
        "grad_norm": 1.0 + 0.2 * math.sin(step),
        "loss_scale": 1.0,
        "learning_rate": min(1e-3, step * 1e-4),
        "step_seconds": 1.0,
        "data_seconds": 0.05,
        "samples_per_second": 8.0,
        "peak_memory_bytes": [262 * MIB, 263 * MIB, 258 * MIB, 259 * MIB],
        "skipped_steps": 0,
        "stages": [{"stage": stage, **seconds, "slowest_rank": 2 * stage} for stage in range(2)],
    }
    return values | changes


def run_json(*starts: dict[str, Any], dtype: str = "bf16", steps: int = 100) -> dict[str, Any]:
    layout = read_rendered(DEMO).layout.model_dump(mode="json") | {"dtype": dtype}
    first = {"at": "2026-11-26T10:00:00+00:00", "from_step": 0, "plan": "plans/1"}
    return {
        "schema_version": 1,
        "versions": {"vdsgen": "0.1.0"},
        "accelerator": "cpu",
        "devices": ["cpu"] * 4,
        "world_size": 4,
        "layout": layout,
        "steps": steps,
        "clips": {"usable": 4},
        "starts": list(starts) or [first],
    }


def write_run(run: Path, steps: int = 30, **record: Any) -> Path:
    """Four ranks after so many steps of a hundred, two checkpoints and held-out losses; no heartbeats."""
    shutil.copytree(DEMO, run / "plans" / "1")
    write_json(run / "run.json", run_json(**record))
    add(run, "metrics", *(metrics_line(step) for step in range(1, steps + 1)))
    held_out = {"weights": "trained", "quantiles": [0.2, 0.8]}
    losses = (
        {"step": step, "loss": 1.3 - step / 100, "loss_by_quantile": [1.0, 1.5]} | held_out
        for step in range(0, steps + 1, 10)
    )
    add(run, "validation", *losses)
    saves = (
        {"step": step, "bytes": 40 * MIB, "blocking_seconds": 0.5, "background_seconds": 0.0}
        for step in (10, 20)
    )
    add(run, "saves", *saves)
    return run


def write_json(path: Path, values: dict[str, Any]) -> None:
    path.write_text(json.dumps(values, indent=2) + "\n")


def add(run: Path, name: str, *lines: dict[str, Any]) -> None:
    """To NAME.jsonl."""
    with (run / f"{name}.jsonl").open("a") as stream:
        stream.writelines(json.dumps(line) + "\n" for line in lines)


def beat(run: Path, rank: int, **changes: Any) -> Path:
    """A heartbeat of step 30."""
    values: dict[str, Any] = {
        "rank": rank,
        "pid": 1000 + rank,
        "host": "node1",
        "launch": "a1",
        "tick": 60,
        "phase": "step",
        "begun": 70,
        "step": 30,
        "activity": "backward",
        "changes": 12,
        "longest_seconds": {"step": 2.5},
    }
    path = beat_file(run, rank)
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(asdict(Beat(**(values | changes)))) + "\n")
    return path


def beats(run: Path, **changes: Any) -> None:
    for rank in range(4):
        beat(run, rank, **changes)


def log(run: Path, rank: int, text: str, start: str = "20261126100000") -> None:
    folder = run / "logs"
    folder.mkdir(exist_ok=True)
    with (folder / f"{start}_rank{rank}.log").open("a") as stream:
        stream.write(text)
