"""Where each pipeline stage's seconds go: measured, beside what the plan says."""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from dataclasses import dataclass

from vdsgen.runs.reader import RunData
from vdsgen.spec.run import ACTIVITIES


@dataclass(frozen=True, slots=True)
class StageTime:
    """Of a step."""

    stage: int
    seconds: Mapping[str, float]
    """By ACTIVITIES; the median of the last steps."""
    planned_forward_seconds: float | None
    planned_backward_seconds: float | None


def stage_times(data: RunData) -> list[StageTime]:
    """[] where a run does not measure it, or has made no step."""
    if not data.stages:
        return []
    stages = len(data.stages[-1])
    steps = [step for step in data.stages if len(step) == stages]
    plan = data.plan if data.plan is not None and len(data.plan.stages) == stages else None
    found = []
    for stage in range(stages):
        forward = backward = None
        if plan is not None:
            micro_batches = plan.batch.gradient_accumulation_steps
            forward = micro_batches * plan.stages[stage].forward_seconds
            backward = micro_batches * plan.stages[stage].backward_seconds
        seconds = {
            name: statistics.median(step[stage].seconds[name] for step in steps) for name in ACTIVITIES
        }
        found.append(StageTime(stage, seconds, forward, backward))
    return found
