"""Where to cut the layers into pipeline stages: a block in each, and the slowest as fast as can be."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Sequence
from functools import lru_cache
from itertools import accumulate

Fits = Callable[[int, int, int], bool]
"""fits(stage, start, stop): whether the layers start to stop - 1 fit the GPUs of this stage."""

ROUNDING = 1e-9
"""Relative; sums of the same layer times in another order are the same time."""


def partition(
    seconds: Sequence[float], is_block: Sequence[bool], stages: int, fits: Fits
) -> tuple[int, ...] | None:
    """Boundaries (len stages + 1) of the partition whose slowest stage is fastest; None where none fits.

    Blocks lie together: layers that are none come before or after all of them, as embeddings and heads do.
    Of several such partitions, the one with the fewest layers in the first stages, which hold the most
    micro-batches. `seconds` are the layers' times for one micro-batch.

    For a bound on the slowest stage, cutting from the back and giving every stage as many layers as the
    bound and the memory allow reaches furthest, so that it tells whether the bound can be met: this holds
    where part of a stage that fits fits too. Bisection over the sums of neighbouring layers then finds the
    least bound. O(log(layers) x stages x log(layers)) after sorting those sums.
    """
    cut = _Cutter(seconds, is_block, stages, fits)
    if cut.from_the_back(float("inf")) is None:
        return None
    bounds = _bounds(tuple(seconds))
    # No partition is faster than an even one, and most are hardly slower: steps away from there double.
    low = bisect_left(bounds, sum(seconds) / stages * (1 - ROUNDING))
    high, stride = low, 1
    while cut.from_the_back(bounds[high]) is None:
        low, high, stride = high + 1, min(high + stride, len(bounds) - 1), 2 * stride
    while low < high:
        middle = (low + high) // 2
        if cut.from_the_back(bounds[middle]) is None:
            low = middle + 1
        else:
            high = middle
    return cut.from_the_back(bounds[low])


def some_fits(is_block: Sequence[bool], stages: int, fits: Fits) -> bool:
    """Whether `partition` finds any."""
    return _Cutter([0.0] * len(is_block), is_block, stages, fits).from_the_back(float("inf")) is not None


@lru_cache(maxsize=64)
def _bounds(seconds: tuple[float, ...]) -> list[float]:
    """The times that a stage can take, rising."""
    running = [0.0, *accumulate(seconds)]
    return sorted(
        {running[stop] - running[start] for stop in range(1, len(running)) for start in range(stop)}
    )


class _Cutter:
    def __init__(self, seconds: Sequence[float], is_block: Sequence[bool], stages: int, fits: Fits) -> None:
        self.layers = len(seconds)
        self.stages = stages
        self.fits = fits
        self.running = [0.0, *accumulate(seconds)]
        self.blocks_before = [0, *accumulate(int(block) for block in is_block)]
        self.first_fitting: dict[tuple[int, int], int] = {}

    def from_the_back(self, bound: float) -> tuple[int, ...] | None:
        """The boundaries that are least where no stage takes longer than `bound`; None where none are."""
        stop = self.layers
        boundaries = [stop]
        for stage in range(self.stages - 1, 0, -1):
            start = max(
                self._by_time(stop, bound), self._by_memory(stage, stop), self._leaves_blocks(stage)
            )  # fmt: skip
            if start >= stop or self.blocks_before[stop] - self.blocks_before[start] < 1:
                return None
            boundaries.append(start)
            stop = start
        if self._by_time(stop, bound) > 0 or self.blocks_before[stop] < 1 or not self.fits(0, 0, stop):
            return None
        boundaries.append(0)
        return tuple(reversed(boundaries))

    def _by_time(self, stop: int, bound: float) -> int:
        return bisect_left(self.running, self.running[stop] - bound * (1 + ROUNDING), hi=stop)

    def _leaves_blocks(self, stage: int) -> int:
        """First start of `stage` that leaves a block for each stage before it."""
        return bisect_left(self.blocks_before, stage)

    def _by_memory(self, stage: int, stop: int) -> int:
        """First layer from which the layers up to `stop` fit `stage`; `stop` where not even one does.

        Starts that would leave no block for an earlier stage are not asked about.
        """
        key = (stage, stop)
        if key not in self.first_fitting:
            starts = range(min(self._leaves_blocks(stage), stop), stop)
            index = bisect_left(starts, True, key=lambda start: self.fits(stage, start, stop))
            self.first_fitting[key] = starts.start + index
        return self.first_fitting[key]
