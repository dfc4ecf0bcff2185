"""What somebody should look at: the trainer's own alarms, and what the run directory shows besides."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from vdsgen.planner.words import percent, seconds
from vdsgen.runs.memory import memory_of
from vdsgen.runs.reader import RunData
from vdsgen.runs.records import Step
from vdsgen.runs.state import Standing
from vdsgen.runs.words import size_words

Severity = Literal["error", "warning", "note"]
SEVERITIES: tuple[Severity, ...] = ("error", "warning", "note")
"""The gravest first."""
RECENT_STEPS = 100
MANY_OVERFLOWS = 5
"""Of the last RECENT_STEPS: a loss scale overflows now and then, when it grows."""
MUCH_WAITING = 0.2
"""Share of the last steps that ranks waited for clips."""
MUCH_SLOWER = 1.5
"""Times the predicted step."""
FEWEST_STEPS = 10
"""Before so many, no figure of speed means anything."""


@dataclass(frozen=True, slots=True)
class Notice:
    """One thing. `step`: that it was seen at, or None."""

    severity: Severity
    kind: str
    step: int | None
    message: str
    remedy: str = ""


def notices(data: RunData, now: Standing, hang: str | None = None) -> list[Notice]:
    """What is so now, the gravest first; then the trainer's alarms, the last one first. `hang`: what is known
    of one, in a sentence."""
    present = sorted(_present(data, now, hang), key=lambda notice: SEVERITIES.index(notice.severity))
    grave = ("not_finite",)
    alarms = [
        Notice(
            "error" if alarm.kind in grave else "note" if alarm.kind == "overflow" else "warning",
            alarm.kind,
            alarm.step,
            alarm.message,
            alarm.remedy,
        )
        for alarm in reversed(data.alarms)
    ]
    return [*present, *alarms]


def _present(data: RunData, now: Standing, hang: str | None) -> Iterator[Notice]:
    if now.state == "failed":
        yield Notice(
            "error", "failed", now.step, f"the run failed: {now.why}", "vdsgen launch --resume goes on"
        )
    if now.state == "silent":
        yield Notice("error", "silent", now.step, now.why, "look at the last lines of the log")
    elif hang is not None and now.state in ("running", "starting"):
        yield Notice(
            "error", "hang", now.step, hang, "vdsgen launch ends a run that hangs, and names the rank"
        )
    yield from _memory(data)
    recent = data.steps[-RECENT_STEPS:]
    yield from _losses(recent)
    yield from _speed(data, now, recent)
    if data.unreadable_lines:
        lines = "line is" if data.unreadable_lines == 1 else "lines are"
        yield Notice("note", "unreadable", None, f"{data.unreadable_lines} {lines} none of a run's", "")


def _memory(data: RunData) -> Iterator[Notice]:
    ranks = memory_of(data)
    over = [rank for rank in ranks if rank.over_capacity]
    above = [rank for rank in ranks if rank.over_plan and not rank.over_capacity]
    if over:
        worst = max(over, key=lambda rank: rank.measured_bytes)
        yield Notice(
            "error",
            "memory",
            None,
            f"rank {worst.rank} has used {size_words(worst.measured_bytes)}, "
            f"{size_words(worst.capacity_bytes or 0)} are what the plan may take",
            "plan with less memory, or a larger reserve",
        )
    if above:
        worst = max(above, key=lambda rank: rank.ratio or 0)
        more = f" (and {len(above) - 1} more)" if len(above) > 1 else ""
        yield Notice(
            "warning",
            "memory",
            None,
            f"rank {worst.rank}{more} has used {size_words(worst.measured_bytes)}, "
            f"{worst.ratio:.2f} x the planned {size_words(worst.planned_bytes or 0)}",
            "vdsgen verify measures where the plan's memory goes",
        )


def _losses(recent: list[Step]) -> Iterator[Notice]:
    without = 0
    for step in reversed(recent):
        if step.loss is not None:
            break
        without += 1
    if without:
        yield Notice(
            "error",
            "loss",
            recent[-1].step,
            f"the loss is no number since step {recent[-without].step}",
            "five such steps in a row end the run; --resume goes back to the last checkpoint",
        )
    overflows = sum(step.overflow for step in recent)
    if overflows >= MANY_OVERFLOWS:
        yield Notice(
            "warning",
            "overflow",
            recent[-1].step,
            f"{overflows} of the last {len(recent)} steps overflowed in fp16 and were skipped",
            "train in bf16 or fp32, or lower training.optimizer.learning_rate",
        )


def _speed(data: RunData, now: Standing, recent: list[Step]) -> Iterator[Notice]:
    if len(recent) < FEWEST_STEPS:
        return
    waiting = data_wait_fraction(recent)
    if waiting > MUCH_WAITING:
        yield Notice(
            "warning",
            "data",
            recent[-1].step,
            f"{percent(waiting)} of the last {len(recent)} steps went into waiting for clips",
            "more data.workers, or vdsgen cache",
        )
    planned = None if data.plan is None else data.plan.predicted.step_seconds
    if planned and now.step_seconds is not None and now.step_seconds > MUCH_SLOWER * planned:
        yield Notice(
            "note",
            "slow",
            recent[-1].step,
            f"a step takes {seconds(now.step_seconds)}, {now.step_seconds / planned:.1f} x the predicted "
            f"{seconds(planned)}",
            "vdsgen calibrate measures this machine",
        )


def data_wait_fraction(steps: list[Step]) -> float:
    """Share of the steps' seconds in which a rank waited for clips."""
    total = sum(step.step_seconds for step in steps)
    return sum(step.data_seconds for step in steps) / total if total else 0.0
