"""A plan's simulated step for trace viewers: its slices, and what each stage holds."""

from __future__ import annotations

from collections.abc import Iterator

from vdsgen.report.plan.held import held_by_stage, reserve_bytes
from vdsgen.report.plan.subject import PlanSubject
from vdsgen.report.trace_events import Counted, Slice, trace_events


def trace_of(subject: PlanSubject) -> bytes:
    """One rank stands for all of its stage: they do the same at the same time."""
    step = subject.step
    slices = [
        Slice(one.stage, 0, one.name, one.micro_batch, one.begin_seconds, one.end_seconds)
        for one in step.slices
    ]
    words = [f"{subject.name}: one optimizer step as predicted"]
    if step.left_out:
        words.append(f"an excerpt: {step.left_out} micro-batches of the steady part are left out")
    return trace_events("simulated", slices, _counted(subject), words)


def _counted(subject: PlanSubject) -> Iterator[Counted]:
    for stage in range(subject.step.stages):
        reserve = reserve_bytes(subject, stage)
        for one in held_by_stage(subject, stage, subject.step.stages):
            yield Counted(stage, one.at_seconds, {"reserve": reserve, **one.moment.components()})
