"""What each stage holds through a step, on the clock: the engine's moments laid over its instructions."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import groupby
from typing import NamedTuple

from vdsgen.cost.timeline import Moment
from vdsgen.report.plan.subject import PlanSubject

MOST_POINTS = 4800
"""Of all stages' curves that are shown; with more, each instruction is shown by its fullest moment."""


class Held(NamedTuple):
    """From a time on, until the next."""

    at_seconds: float
    moment: Moment


def instruction_peaks(moments: Iterable[Moment]) -> tuple[Moment, ...]:
    """The moment of each instruction that holds most."""
    groups = groupby(moments, key=lambda moment: (moment.instruction, moment.micro_batch))
    return tuple([max(group, key=lambda moment: moment.total_bytes) for _, group in groups])


def held_by_stage(subject: PlanSubject, stage: int, shown_stages: int = 1) -> list[Held]:
    """One stage's step. An instruction's moments are spread evenly over its time; what takes none (loading)
    is where the next begins."""
    step = subject.step
    start, stop = subject.plan.stages[stage].layers
    timeline = subject.workload.timeline(subject.settings, stage, start, stop)
    moments = list(timeline.moments(step.micro_batches))
    if len(moments) * shown_stages > MOST_POINTS:
        moments = list(instruction_peaks(moments))
    spans = {
        (one.name, one.micro_batch): (one.begin_seconds, one.end_seconds) for one in step.of_stage(stage)
    }
    found: list[Held] = []
    now = 0.0
    for key, group in groupby(moments, key=lambda moment: (moment.instruction, moment.micro_batch)):
        own = list(group)
        begin, end = spans.get(key, (now, now))
        for place, moment in enumerate(own):
            found.append(Held(begin + (end - begin) * place / len(own), moment))
        now = max(now, end)
    return found


def reserve_bytes(subject: PlanSubject, stage: int) -> int:
    """What a stage leaves free for the allocator and the context, beside what it holds."""
    return subject.plan.stages[stage].memory.reserve_bytes
