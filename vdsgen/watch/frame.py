"""What is shown of a run at one moment: numbers alone, the same for the screen, for text and for JSON."""

from __future__ import annotations

from dataclasses import dataclass

from vdsgen.runs.logs import LogLine
from vdsgen.runs.memory import RankMemory, memory_of
from vdsgen.runs.notices import Notice, data_wait_fraction, notices
from vdsgen.runs.reader import RunData, RunReader
from vdsgen.runs.stage_times import StageTime, stage_times
from vdsgen.runs.state import RECENT_STEPS, Standing, next_save, standing
from vdsgen.runs.values import one_line
from vdsgen.watch.curves import Curve, Curves, held_out_weights
from vdsgen.watch.pulse import Pulse


@dataclass(frozen=True, slots=True)
class Saved:
    """Checkpoints: the last one, and the next."""

    step: int | None
    size_bytes: int | None
    blocking_seconds: float | None
    next_step: int | None
    next_seconds: float | None
    """Until then."""


@dataclass(frozen=True, slots=True)
class Frame:
    run: str
    name: str | None
    """Of the experiment."""
    layout: str | None
    standing: Standing
    samples_per_second: float | None
    predicted_step_seconds: float | None
    predicted_samples_per_second: float | None
    data_wait_fraction: float | None
    """Of the last steps."""
    flops_utilization: float | None
    """Share of the GPUs' peak that the last steps have used for the model; None on processors."""
    bubble_fraction: float | None
    predicted_bubble_fraction: float | None
    overflows: int | None
    """So far; None but in fp16."""
    restarts: int
    last_failure: str | None
    """How the last start ended that ended badly."""
    best_held_out: tuple[int, float] | None
    """Step and loss."""
    saved: Saved
    curves: dict[str, Curve]
    """By name; `CURVES` in this order, those that there are."""
    memory: tuple[RankMemory, ...]
    stages: tuple[StageTime, ...]
    notices: tuple[Notice, ...]
    log: tuple[LogLine, ...]


class Watcher:
    """Makes frames of one run directory."""

    def __init__(self, reader: RunReader) -> None:
        self._reader = reader
        self._pulse = Pulse()
        self._curves = Curves()

    def look(self) -> Frame:
        data = self._reader.look()
        ranks = (data.record.world_size if data.record else None) or len(data.beats) or 1
        self._pulse.see(data.beats, ranks)
        silent_seconds, hang = self._pulse.silent_seconds(), self._pulse.hang(data.beats)
        return frame_of(data, self._curves.look(data), silent_seconds, hang)


def frame_of(
    data: RunData, curves: dict[str, Curve], silent_seconds: float | None, hang: str | None = None
) -> Frame:
    now = standing(data, silent_seconds=silent_seconds)
    plan, recent = data.plan, data.steps[-RECENT_STEPS:]
    predicted = None if plan is None else plan.predicted
    batch = None if plan is None else plan.batch.global_batch_size
    stages = stage_times(data)
    on_processors = data.record is None or data.record.on_processors
    utilization = None
    if predicted and now.step_seconds and not on_processors:
        # The same work in another time.
        utilization = predicted.model_flops_utilization * predicted.step_seconds / now.step_seconds
    layout = None if data.record is None else data.record.layout
    return Frame(
        run=one_line(str(data.path)),
        name=None if data.experiment is None else data.experiment.name,
        layout=None if layout is None else str(layout),
        standing=now,
        samples_per_second=batch / now.step_seconds if batch and now.step_seconds else None,
        predicted_step_seconds=None if predicted is None else predicted.step_seconds,
        predicted_samples_per_second=None if predicted is None else predicted.samples_per_second,
        data_wait_fraction=data_wait_fraction(recent) if recent else None,
        flops_utilization=utilization,
        bubble_fraction=_bubble(stages),
        predicted_bubble_fraction=None if predicted is None else predicted.bubble_fraction,
        overflows=sum(step.overflow for step in data.steps) if layout and layout.dtype == "fp16" else None,
        restarts=max(0, len(data.record.starts) - 1) if data.record else 0,
        last_failure=_last_failure(data),
        best_held_out=_best_held_out(data),
        saved=_saved(data, now),
        curves=curves,
        memory=tuple(memory_of(data)),
        stages=tuple(stages),
        notices=tuple(notices(data, now, hang)),
        log=tuple(data.log),
    )


def _bubble(stages: list[StageTime]) -> float | None:
    total = sum(sum(stage.seconds.values()) for stage in stages)
    return sum(stage.seconds["bubble"] for stage in stages) / total if total else None


def _last_failure(data: RunData) -> str | None:
    starts = data.record.starts if data.record else ()
    return next((start.end for start in reversed(starts) if start.end and not start.was_stopped), None)


def _best_held_out(data: RunData) -> tuple[int, float] | None:
    weights = held_out_weights(data)
    losses = [(line.loss, line.step) for line in data.held_out if line.weights == weights and line.loss]
    return None if not losses else min(losses)[::-1]


def _saved(data: RunData, now: Standing) -> Saved:
    last = data.saves[-1] if data.saves else None
    following = next_save(data, now.step, now.steps) if now.state in ("starting", "running") else None
    until = None
    if following is not None and now.step_seconds is not None:
        until = (following - now.step) * now.step_seconds
    return Saved(
        None if last is None else last.step,
        None if last is None else last.size_bytes,
        None if last is None else last.blocking_seconds,
        following,
        until,
    )
