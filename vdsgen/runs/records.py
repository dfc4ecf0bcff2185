"""What a run writes line by line, each line checked: a step, a held-out loss, a checkpoint, an alarm."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from vdsgen.runs.values import mappings, number, numbers, text, whole, whole_numbers
from vdsgen.spec.run import ACTIVITIES

LEAST_SECONDS, MOST_SECONDS = 1e-9, 1e12
"""Of a step: whatever is asked of it, it is divided by."""


@dataclass(frozen=True, slots=True)
class Step:
    """An optimizer step. None: no finite number, or not known."""

    step: int
    loss: float | None
    grad_norm: float | None
    loss_scale: float | None
    learning_rate: float | None
    step_seconds: float
    data_seconds: float
    """In which a rank waited for clips."""
    samples_per_second: float | None
    peak_bytes: tuple[int, ...]
    """Of each rank; kept of runs on processors alone (RunData.highest_bytes has the others')."""
    overflow: bool
    """fp16 gradients overflowed, and the step was left out."""
    bucket: str | None
    """Frames x height x width, where clips come in several sizes."""


@dataclass(frozen=True, slots=True)
class StageSeconds:
    """What a pipeline stage spent a step on."""

    stage: int
    seconds: Mapping[str, float]
    """By ACTIVITIES."""


@dataclass(frozen=True, slots=True)
class HeldOutLoss:
    """On clips that training does not see."""

    step: int
    weights: str
    """`trained`, or `ema`."""
    loss: float | None
    quantiles: tuple[float | None, ...]
    """Noise levels, as quantiles of those that training draws."""
    loss_by_quantile: tuple[float | None, ...]


@dataclass(frozen=True, slots=True)
class Save:
    """A checkpoint."""

    step: int
    size_bytes: int
    blocking_seconds: float
    background_seconds: float


@dataclass(frozen=True, slots=True)
class RunAlarm:
    """What the trainer warned of."""

    kind: str
    step: int
    message: str
    remedy: str


def step_of(values: Mapping[str, Any]) -> Step | None:
    """None where it is no step: without its number or its seconds."""
    step, seconds = whole(values.get("step")), number(values.get("step_seconds"))
    if step is None or seconds is None or not 0 <= seconds <= MOST_SECONDS:
        return None
    return Step(
        step=step,
        loss=number(values.get("loss")),
        grad_norm=number(values.get("grad_norm")),
        loss_scale=number(values.get("loss_scale")),
        learning_rate=number(values.get("learning_rate")),
        step_seconds=max(LEAST_SECONDS, seconds),
        data_seconds=max(0.0, number(values.get("data_seconds")) or 0.0),
        samples_per_second=number(values.get("samples_per_second")),
        peak_bytes=whole_numbers(values.get("peak_memory_bytes")),
        overflow=values.get("overflow") is True,
        bucket=text(values.get("bucket")),
    )


def stages_of(values: Mapping[str, Any]) -> tuple[StageSeconds, ...]:
    """Of a step; () where a stage lacks one of its figures."""
    found = []
    for index, stage in enumerate(mappings(values.get("stages"))):
        seconds = {name: number(stage.get(f"{name}_seconds")) for name in ACTIVITIES}
        known = {name: value for name, value in seconds.items() if value is not None}
        if len(known) < len(ACTIVITIES):
            return ()
        found.append(StageSeconds(index, known))
    return tuple(found)


def held_out_of(values: Mapping[str, Any]) -> HeldOutLoss | None:
    step, weights = whole(values.get("step")), text(values.get("weights"))
    if step is None or weights is None:
        return None
    return HeldOutLoss(
        step,
        weights,
        number(values.get("loss")),
        numbers(values.get("quantiles")),
        numbers(values.get("loss_by_quantile")),
    )


def save_of(values: Mapping[str, Any]) -> Save | None:
    step, size = whole(values.get("step")), whole(values.get("bytes"))
    if step is None or size is None:
        return None
    blocking, background = (
        max(0.0, number(values.get(f"{how}_seconds")) or 0.0) for how in ("blocking", "background")
    )
    return Save(step, size, blocking, background)


def alarm_of(values: Mapping[str, Any]) -> RunAlarm | None:
    step, kind, message = whole(values.get("step")), text(values.get("kind")), text(values.get("message"))
    if step is None or kind is None or message is None:
        return None
    return RunAlarm(kind, step, message, text(values.get("remedy")) or "")
