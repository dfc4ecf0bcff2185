"""Where the seconds of a step go that perfect scaling would not need."""

from __future__ import annotations

from typing import NamedTuple

from vdsgen.cost.settings import Settings
from vdsgen.cost.step_time import StepTime
from vdsgen.spec.explanations import LossSplit

CAUSES = {
    "bubble_seconds": "bubble",
    "imbalance_seconds": "imbalance",
    "links_seconds": "links",
    "batch_seconds": "batch",
    "recompute_seconds": "recompute",
    "optimizer_seconds": "optimizer",
    "other_seconds": "other",
}
"""The parts of `LossSplit`, as columns are headed."""


NOT_LINKS = frozenset(
    {
        "compute_seconds",
        "recompute_seconds",
        "bubble_seconds",
        "optimizer_seconds",
        "offload_seconds",
        "data_seconds",
        "overhead_seconds",
    }
)
"""Parts of a step that no link between GPUs takes; all others are links'."""


class Bubble(NamedTuple):
    """A pipeline's waiting, by its cause."""

    filling_seconds: float
    imbalance_seconds: float


def bubble_of(settings: Settings, time: StepTime) -> Bubble:
    """Filling and draining p equal stages takes p - 1 micro-batches (arXiv 2104.04473, section 2.2.1); what
    the simulation waits beyond that, it waits for stages that are longer than others. Ranks that share a
    processor lend each other their cores, and wait less than this formula: then all is filling."""
    busy = time.compute_seconds + time.recompute_seconds + time.tensor_seconds + time.sequence_seconds
    equal = (settings.pipeline_parallel_size - 1) / settings.gradient_accumulation_steps * busy
    filling = min(time.bubble_seconds, equal)
    return Bubble(filling, time.bubble_seconds - filling)


def spent(settings: Settings, time: StepTime) -> LossSplit:
    """A whole step by the causes of `LossSplit`; `batch_seconds` are forward and backward."""
    bubble = bubble_of(settings, time)
    links = sum(value for part, value in time.split()._asdict().items() if part not in NOT_LINKS)
    return LossSplit(
        bubble_seconds=bubble.filling_seconds,
        imbalance_seconds=bubble.imbalance_seconds,
        links_seconds=links,
        batch_seconds=time.compute_seconds,
        recompute_seconds=time.recompute_seconds,
        optimizer_seconds=time.optimizer_seconds,
        other_seconds=time.offload_seconds + time.data_seconds + time.overhead_seconds,
    )


def loss(settings: Settings, time: StepTime, base: LossSplit, share: float) -> LossSplit:
    """What a step takes beyond `share` of a step of the base; the parts add up to the difference."""
    mine = spent(settings, time)
    return LossSplit(**{name: value - share * getattr(base, name) for name, value in mine})
