"""One row's figures beside what the cost functions predict, or why they are not compared."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

from vdsgen.cost.memory import DEVICE_CONTEXT_BYTES, FRAGMENTATION_FRACTION
from vdsgen.published.notes import Facts, facts_of
from vdsgen.published.pools import memory_gib
from vdsgen.published.reasons import CannotExpressError
from vdsgen.published.row import Row
from vdsgen.units import GIB

COMMUNICATOR_BYTES = 600_000_000
"""Of each communicator beyond the first, over NVLink: 0.5 to 0.7 GB (NVIDIA/nccl issue 964)."""


class Comparison(NamedTuple):
    """A published figure and its prediction, in GiB or seconds."""

    measured: float
    predicted: float
    remark: str | None = None
    """Why the two may differ, where the row says so itself."""
    counts: bool = True
    """Whether the error belongs into medians: a ceiling that is not exceeded says nothing more."""

    @property
    def error(self) -> float:
        return self.predicted / self.measured - 1


class Outcome(NamedTuple):
    """What became of one row. A figure that the row has is either compared or has its reason."""

    row: Row
    memory: Comparison | None
    memory_reason: str | None
    seconds: Comparison | None
    seconds_reason: str | None


class Predictions(NamedTuple):
    """What a row's case answers; each raises CannotExpressError where it has no answer."""

    tensor_bytes: Callable[[], float]
    communicators: int
    """Groups that one GPU communicates in."""
    seconds: Callable[[], float]
    measured_seconds: Callable[[], float | None]
    remark: str | None = None
    """What was assumed."""


def compared(rows: Iterable[Row]) -> Iterator[Outcome]:
    """Each row in turn; an expressed one takes some hundredths of a second."""
    for row in rows:
        yield outcome_of(row)


def outcome_of(row: Row) -> Outcome:
    """Predicts what one row measured."""
    facts = facts_of(row)
    try:
        predictions = _express(row, facts)
    except CannotExpressError as reason:
        why = str(reason)
        return Outcome(row, None, why if _has_memory(row) else None, None, why if _has_time(row) else None)
    memory = seconds = memory_reason = seconds_reason = None
    if _has_memory(row):
        try:
            memory = _memory(row, facts, predictions)
        except CannotExpressError as reason:
            memory_reason = str(reason)
    if _has_time(row):
        try:
            seconds = _seconds(facts, predictions)
        except CannotExpressError as reason:
            seconds_reason = str(reason)
    return Outcome(row, memory, memory_reason, seconds, seconds_reason)


def _express(row: Row, facts: Facts) -> Predictions:
    if row.unreadable:
        raise CannotExpressError(f"no number in {', '.join(row.unreadable)}")
    if row.arch == "gpt":
        from vdsgen.published.decoder_predictions import decoder_predictions

        return decoder_predictions(row, facts)
    if row.arch == "dit":
        from vdsgen.published.diffusion_predictions import diffusion_predictions

        return diffusion_predictions(row, facts)
    raise CannotExpressError(f"architecture {row.arch!r}" if row.arch else "no arch")


def _has_memory(row: Row) -> bool:
    return row.number("peak_mem_gb") is not None


def _has_time(row: Row) -> bool:
    return any(row.number(name) is not None for name in ("sec_per_step", "samples_per_s", "tflops_per_gpu"))


def _memory(row: Row, facts: Facts, predictions: Predictions) -> Comparison:
    if facts.bound:
        raise CannotExpressError("a bound that somebody states, not a reading")
    measured = row.numbers["peak_mem_gb"]
    tensors = predictions.tensor_bytes()
    predicted = read_bytes(tensors, row.mem_kind, predictions.communicators) / GIB
    if facts.ceiling:
        remark = "a ceiling: what was on the GPU before training decided the reading"
        return Comparison(measured, predicted, remark, counts=predicted > measured)
    return Comparison(measured, predicted, memory_remark(row, facts) or predictions.remark)


def memory_remark(row: Row, facts: Facts) -> str | None:
    """What the row says that a prediction cannot know."""
    if facts.user_report:
        return "a user's report, about"
    if facts.gpus_disagree:
        return "the source's GPU count and its layout disagree"
    if facts.assumed_checkpointing:
        return "checkpointing is assumed, not stated"
    capacity = memory_gib(row.gpu_type)
    if row.mem_kind == "unknown" and capacity is not None and row.numbers["peak_mem_gb"] >= capacity:
        return "the whole GPU: the allocator had cached all there was"
    return None


def read_bytes(tensors: float, kind: str, communicators: int) -> float:
    """What a reading of `kind` shows where this many bytes are in tensors: torch's own counters leave out the
    device context, and only `reserved` has the allocator's share; all else is read from the driver."""
    if kind == "allocated":
        return tensors
    reserved = tensors * (1 + FRAGMENTATION_FRACTION)
    return reserved if kind == "reserved" else reserved + driver_bytes(communicators)


def driver_bytes(communicators: int) -> float:
    """The context with a first communicator, and what each further one takes."""
    return DEVICE_CONTEXT_BYTES + COMMUNICATOR_BYTES * max(0, communicators - 1)


def _seconds(facts: Facts, predictions: Predictions) -> Comparison:
    measured = predictions.measured_seconds()
    if measured is None:
        raise CannotExpressError("no seconds, and no batch to derive them from")
    remark = None
    if facts.gpus_disagree:
        remark = "the source's GPU count and its layout disagree"
    elif facts.toy:
        remark = "a toy: the host is slower than the GPU"
    elif facts.unsteady:
        remark = "the source warns that its times vary"
    return Comparison(measured, predictions.seconds(), remark)
