"""A stretch of layers as one stage, and when that stage is through at the earliest."""

from __future__ import annotations

from typing import NamedTuple

from vdsgen.cost.schedule import idle_lower_bound
from vdsgen.planner.stages import Stages, Way


class Span(NamedTuple):
    """A stretch of layers as one stage."""

    start: int
    stop: int
    way: Way
    forward: float
    backward: float

    @property
    def busy(self) -> float:
        return self.forward + self.backward


def span_of(stages: Stages, stage: int, start: int, stop: int, way: Way) -> Span:
    """The layers start to stop - 1 on `stage`, run in this way."""
    forward = stages.forward[stage]
    busy = stages.busy_seconds(way, stage, start, stop)
    ahead = forward[stop] - forward[start] + stages.instructions
    back = busy + 2 * stages.instructions - ahead
    return Span(start, stop, way, ahead, back)


def earliest_end(
    stages: Stages, stage: int, span: Span, before: tuple[float, float], beside: float, later: float
) -> float:
    """When this stage has reduced its gradients, and its last micro-batch is back at the first stage, at the
    earliest.

    One micro-batch takes `before` in the stages before it, forward and both ways; `later` through later ones
    and back; `beside` to come from the stage before and to go to the next.
    """
    forward, both = before
    micro_batches = stages.settings.gradient_accumulation_steps
    works = micro_batches * (span.busy + 2 * beside) + idle_lower_bound(
        later, span.forward + beside, span.backward + beside, stages.count - stage, micro_batches
    )
    reduced = forward + works + stages.reduce_seconds(stage, span.start, span.stop)
    return max(both + works, reduced)
