"""What has become of a run, from what it has left."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from vdsgen.runs.beats import all_done, newest, where_words
from vdsgen.runs.reader import RunData
from vdsgen.runs.records import Step
from vdsgen.runs.values import whole

State = Literal["waiting", "starting", "running", "silent", "finished", "stopped", "failed"]
"""waiting: nothing is there yet. silent: ranks have shown that they run, and show it no more, and nobody has
written why."""
SILENT_SECONDS = 30.0
"""Without a heartbeat, which come once a second; networks' file systems show them late."""
RECENT_STEPS = 20
"""Whose median makes the estimate of the time left."""
RECENT_STEPS_OF_SIZES = 200
"""The same where clips come in several sizes, whose steps take differently long."""


@dataclass(frozen=True, slots=True)
class Standing:
    """Where a run stands."""

    state: State
    why: str
    """In words: how it ended, or what ranks do; empty where the state says all."""
    step: int
    steps: int | None
    """Where it ends; None: not known yet."""
    step_seconds: float | None
    """Of the last steps."""
    seconds_left: float | None
    """None where it has ended, or nothing is known."""


def standing(data: RunData, *, silent_seconds: float | None) -> Standing:
    """`silent_seconds`: since a rank has shown that it runs; None: none ever has."""
    step = last_step(data)
    steps = planned_steps(data)
    state, why = _state(data, step, steps, silent_seconds)
    recent = recent_step_seconds(data.steps)
    left = None
    if state == "running" and steps is not None and recent is not None:
        left = max(0, steps - step) * recent + _saving_seconds(data, step, steps)
    return Standing(state, why, step, steps, recent, left)


def last_step(data: RunData) -> int:
    return data.steps[-1].step if data.steps else 0


def planned_steps(data: RunData) -> int | None:
    """`--steps` of the last start, else the experiment's."""
    if data.record is not None and data.record.steps:
        return data.record.steps
    return None if data.experiment is None else data.experiment.training.steps


def _state(data: RunData, step: int, steps: int | None, silent_seconds: float | None) -> tuple[State, str]:
    if not data.exists:
        return "waiting", "nothing is there yet"
    if all_done(data.beats):
        return ("finished", "") if steps is None or step >= steps else ("stopped", "as was asked")
    last = data.record.starts[-1] if data.record and data.record.starts else None
    begun_since = (newest(data.beats) or 0.0) > data.record_written_at
    if last is not None and last.end is not None and not begun_since:
        return ("stopped" if last.was_stopped else "failed"), last.end
    if not data.beats:
        summed_up = whole((data.summary or {}).get("steps"))
        if summed_up is not None and summed_up >= step > 0:
            return "finished", ""
        if data.steps:
            return "silent", "no rank shows what it does: of an earlier version, or killed as it began"
        return "starting", "no rank shows yet what it does"
    if silent_seconds is not None and silent_seconds > SILENT_SECONDS:
        return "silent", "no rank shows a sign of life: killed, its host away, or its disk full"
    where = _where(data)
    trained = any(seen.beat.step > 0 for seen in data.beats.values())
    return ("running" if trained else "starting"), where


def _where(data: RunData) -> str:
    """What the rank does that has come the least far."""
    beat = min((seen.beat for seen in data.beats.values()), key=lambda beat: beat.position)
    return where_words(beat)


def recent_step_seconds(steps: Sequence[Step]) -> float | None:
    """The median of the last steps; of several sizes of clips, the mean of each one's, weighted by how often
    it came."""
    if not steps:
        return None
    by_bucket: dict[str | None, list[float]] = {}
    for step in steps[-RECENT_STEPS_OF_SIZES:]:
        by_bucket.setdefault(step.bucket, []).append(step.step_seconds)
    if len(by_bucket) == 1:
        return statistics.median(step.step_seconds for step in steps[-RECENT_STEPS:])
    counted = sum(map(len, by_bucket.values()))
    return sum(len(seconds) * statistics.median(seconds) for seconds in by_bucket.values()) / counted


def next_save(data: RunData, step: int, steps: int | None) -> int | None:
    """The step after which the next checkpoint is written."""
    every = None if data.experiment is None else data.experiment.training.saving.every_steps
    if not isinstance(every, int):
        return None
    following = (step // every + 1) * every
    return following if steps is None else min(following, steps) if step < steps else None


def _saving_seconds(data: RunData, step: int, steps: int) -> float:
    """In which the rest of the run waits for checkpoints."""
    every = None if data.experiment is None else data.experiment.training.saving.every_steps
    if not isinstance(every, int) or not data.saves:
        return 0.0
    saves = (steps - 1) // every - step // every + 1
    return max(0, saves) * statistics.median(save.blocking_seconds for save in data.saves)
