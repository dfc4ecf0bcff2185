"""metrics.jsonl: one object a step, written by rank 0."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from vdsgen.errors import VdsgenError
from vdsgen.model.json_lines import LinesFile, as_line, read_lines
from vdsgen.spec.run import METRICS

FILE = METRICS
NON_FINITE_LIMIT = 5
"""Steps in a row without a finite loss after which training has no chance left."""
ONLY_WHERE_KNOWN = (
    "bucket",
    "data_wait",
    "loader",
    "overflow",
    "skipped_steps",
    "held_memory_bytes",
    "stages",
)


@dataclass(frozen=True, slots=True)
class StepMetrics:
    """One optimizer step. A value that is not finite is `null` in the file."""

    step: int
    """Counts from 1."""
    loss: float
    """Mean over the global batch."""
    grad_norm: float
    """Of the whole model, before clipping; not finite where fp16 overflowed and the step was skipped."""
    loss_scale: float
    """In force during the step; 1 but in fp16."""
    learning_rate: float
    """That the step was made with."""
    step_seconds: float
    """From asking for the first micro-batch to the end of the optimizer's work."""
    data_seconds: float
    """Part of it in which a rank waited for clips: the rank that waited longest."""
    samples_per_second: float
    peak_memory_bytes: list[int]
    """The step's peak, one a rank; vdsgen.model.memory says of what."""
    bucket: str | None = None
    """Frames x height x width of the step's clips, where they come in several sizes; else not in the file."""
    data_wait: dict[str, float] | None = None
    """What `data_seconds` went to, on that rank: reading_seconds, decoding_seconds, encoding_seconds,
    hand_over_seconds."""
    loader: dict[str, float] | None = None
    """What all ranks' loaders did for the step's clips, waited for or not: samples, read_bytes,
    reading_seconds, decoding_seconds, encoding_seconds."""

    overflow: bool | None = None
    """fp16 only: whether gradients overflowed, and the step was skipped."""
    skipped_steps: int | None = None
    """Steps that the engine left out so far because gradients were not finite, this one included."""
    held_memory_bytes: list[int] | None = None
    """Held between this step and the next, one a rank."""
    stages: list[dict[str, float | int]] | None = None
    """Where each pipeline stage's seconds went: vdsgen.model.monitoring.gather.StageTimes."""

    def line(self) -> str:
        values = asdict(self)
        return as_line(
            {key: value for key, value in values.items() if value is not None or key not in ONLY_WHERE_KNOWN}
        )


class MetricsFile:
    """The file of a run, to append to."""

    def __init__(self, run: Path, *, resumed_step: int) -> None:
        """Drops what an interrupted run wrote past the step that it is resumed from."""
        self._file = LinesFile(run / FILE, resumed_step=resumed_step)

    def append(self, metrics: StepMetrics) -> None:
        self._file.write(metrics.line())

    def close(self) -> None:
        self._file.close()


def read_metrics(run: Path) -> list[dict[str, Any]]:
    """Every whole line of a run's metrics, [] where there are none."""
    return read_lines(run / FILE)


class DivergedError(VdsgenError):
    """The loss is not a number any more, and will not become one again."""

    exit_code = 4


class DivergenceAlarm:
    """Warns when a loss is not finite, and ends the run after NON_FINITE_LIMIT of them in a row."""

    def __init__(self) -> None:
        self._in_a_row = 0

    def check(self, metrics: StepMetrics) -> str | None:
        """A warning, or None. Raises DivergedError (the same on every rank: all see the same loss)."""
        if math.isfinite(metrics.loss):
            self._in_a_row = 0
            return None
        self._in_a_row += 1
        what = f"step {metrics.step}: the loss is {metrics.loss} (gradient norm {metrics.grad_norm})"
        if self._in_a_row >= NON_FINITE_LIMIT:
            raise DivergedError(
                f"{what}, the {self._in_a_row}th step in a row without a finite loss: training has diverged",
                remedy="lower training.optimizer.learning_rate, lengthen the warm-up, or train in bf16 or "
                "fp32; --resume continues from the last checkpoint",
            )
        return f"divergence: {what}"
