"""A frame for programs: `vdsgen watch RUN --json`."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Any

from vdsgen.runs.smooth import thinned
from vdsgen.watch.curves import Curve
from vdsgen.watch.frame import Frame

MOST_POINTS = 200
"""Of a curve."""


def as_json(frame: Frame) -> str:
    """One object, keys in a fixed order; bytes and seconds as their names say."""
    now = frame.standing
    values: dict[str, Any] = {
        "schema_version": 1,
        "run": frame.run,
        "name": frame.name,
        "layout": frame.layout,
        "state": now.state,
        "why": now.why,
        "step": now.step,
        "steps": now.steps,
        "seconds_left": now.seconds_left,
        "step_seconds": now.step_seconds,
        "predicted_step_seconds": frame.predicted_step_seconds,
        "samples_per_second": frame.samples_per_second,
        "predicted_samples_per_second": frame.predicted_samples_per_second,
        "data_wait_fraction": frame.data_wait_fraction,
        "model_flops_utilization": frame.flops_utilization,
        "bubble_fraction": frame.bubble_fraction,
        "predicted_bubble_fraction": frame.predicted_bubble_fraction,
        "overflows": frame.overflows,
        "restarts": frame.restarts,
        "last_failure": frame.last_failure,
        "last": {name: curve.values[-1] for name, curve in frame.curves.items()},
        "smoothed": {name: curve.last_smooth for name, curve in frame.curves.items() if curve.smooth},
        "best_held_out": None
        if frame.best_held_out is None
        else {"step": frame.best_held_out[0], "loss": frame.best_held_out[1]},
        "checkpoint": asdict(frame.saved),
        "memory": [asdict(rank) for rank in frame.memory],
        "stages": [asdict(stage) for stage in frame.stages],
        "alarms": [asdict(notice) for notice in frame.notices],
        "log": [asdict(line) for line in frame.log],
        "curves": {name: _points(curve) for name, curve in frame.curves.items()},
    }
    return json.dumps(values, indent=2, allow_nan=False)


def _points(curve: Curve) -> list[list[float | None]]:
    """[step, value] each; of long curves, the lowest and the highest of each stretch."""
    return [
        [step, value]
        for step, value in thinned(list(zip(curve.steps, curve.values, strict=True)), MOST_POINTS)
    ]
