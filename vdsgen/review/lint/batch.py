"""Batch arithmetic as the engine does it (runtime/config.py:590-650): two of three numbers make the third."""

from __future__ import annotations

from typing import NamedTuple

from vdsgen.review.lint.keys import Values

NAMES = ("train_batch_size", "train_micro_batch_size_per_gpu", "gradient_accumulation_steps")


class BatchSizes(NamedTuple):
    """What the engine would work with; None: not known."""

    total: int | None
    micro: int | None
    accumulation: int | None


def batch_sizes(values: Values, data_parallel_size: int | None) -> BatchSizes:
    """The three numbers; those that are not written follow from the others, rounded down as there."""
    total, micro, accumulation = (values.get(f"/{name}") for name in NAMES)
    unknown = {name for name in NAMES if f"/{name}" in values.wrong | values.filled}
    if unknown:
        return BatchSizes(total, micro, accumulation)
    if total is not None and micro is not None and accumulation is not None:
        return BatchSizes(total, micro, accumulation)
    ranks = data_parallel_size
    if total is None and micro is None:
        return BatchSizes(None, None, accumulation)
    if total is not None and micro is not None:
        steps = None if ranks is None or micro < 1 else total // micro // ranks
        return BatchSizes(total, micro, steps)
    steps = 1 if accumulation is None else accumulation
    if total is not None:
        return BatchSizes(total, None if ranks is None or steps < 1 else total // ranks // steps, steps)
    assert micro is not None, "one of the two is there"
    return BatchSizes(None if ranks is None else micro * steps * ranks, micro, steps)
