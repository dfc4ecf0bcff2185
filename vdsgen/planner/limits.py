"""Which stages tables need not hold: those that take too long, whatever the others are."""

from __future__ import annotations

from math import inf

from vdsgen.planner.earliest import Earliest
from vdsgen.planner.spans import Span
from vdsgen.planner.stages import Stages

ROUNDING = 1e-9
"""Relative; sums of the same times in another order are the same time."""


class BusyLimit:
    """Stages that take at most so long for one micro-batch."""

    def __init__(self, stages: Stages, most_busy_seconds: float) -> None:
        whole = stages.most_seconds + 2 * stages.instructions
        self.is_none = most_busy_seconds >= whole
        """No stage takes longer."""
        self.most_busy = min(most_busy_seconds, whole) * (1 + ROUNDING)

    def excludes(self, _stage: int, span: Span) -> bool:
        """Where it excludes a span, it does so for longer ones from the same layer on."""
        return span.busy > self.most_busy


class StepLimit:
    """Stages that may be part of a step of at most so many seconds, `common_seconds` of which follow the last
    reduction at least."""

    def __init__(self, earliest: Earliest, common_seconds: float, step_seconds: float) -> None:
        self.earliest = earliest
        self.common_seconds = common_seconds
        self.step_seconds = step_seconds * (1 + ROUNDING)
        stages = earliest.stages
        self._step_lower_bound = stages.workload.times.step_lower_bound
        self._settings = stages.settings
        steps = stages.settings.gradient_accumulation_steps
        self.most_busy = BusyLimit(stages, step_seconds / steps).most_busy

    def excludes(self, stage: int, span: Span) -> bool:
        """As of BusyLimit: a longer stage is through no earlier."""
        if self.step_seconds == inf:
            return False
        end = self.earliest.end(stage, span)
        return self._step_lower_bound(self._settings, end, self.common_seconds) > self.step_seconds
