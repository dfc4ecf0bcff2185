"""What the stages of one settings variant take and hold, for any stretch of layers: what boundaries are
chosen by.

A stage runs plainly where it fits so, since recomputing only ever adds time; else it recomputes, in the
segments that need least memory. `checkpoint_interval` of the other stages matters to neither.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from itertools import accumulate, pairwise

from vdsgen.cost.settings import Settings
from vdsgen.cost.step_tail import StageTail
from vdsgen.planner.bounds import least_layer_seconds
from vdsgen.planner.workload import Workload


class Stages:
    """One settings variant, its checkpoint intervals left open.

    `plain` and `recomputed` say which ways to run a stage are open; `interval` that of stages that
    recompute, where it is given. `limit_bytes` is what stages may hold,
    where that is less than their GPUs have. Without `memory` anything fits.
    """

    def __init__(
        self,
        workload: Workload,
        settings: Settings,
        *,
        plain: bool,
        recomputed: bool,
        interval: int | None = None,
        limit_bytes: int | None = None,
        memory: bool = True,
    ) -> None:
        assert plain or recomputed, "a stage runs in some way"
        self.workload = workload
        self.settings = settings
        self.count = settings.pipeline_parallel_size
        self.layers = workload.layers
        self._ways = tuple(way for way, is_open in enumerate((plain, recomputed)) if is_open)
        self._memory = memory
        self._limit = limit_bytes
        self._interval = interval
        times = workload.times
        by_way = (
            settings._replace(activation_checkpoint_interval=0),
            settings._replace(activation_checkpoint_interval=1),
        )
        self.instructions = times.instruction_seconds(settings)
        self.forward = [_sums(times.forward_seconds(settings, stage)) for stage in range(self.count)]
        self.busy = [
            tuple(_sums(times.layer_seconds(one, stage)) for one in by_way) for stage in range(self.count)
        ]
        self.sends = [times.boundary_seconds(settings, stage) for stage in range(self.count - 1)]
        self._way: dict[tuple[int, int], int | None] = {}
        self._most: dict[tuple[object, ...], tuple[int, int]] = {}
        self._best: dict[tuple[object, ...], int] = {}
        self._tails: dict[tuple[int, int], StageTail] = {}

    @property
    def least_seconds(self) -> Sequence[float]:
        """Running sums of the layers' times where each is fastest, in the faster of the open ways."""
        interval = 0 if self._ways[0] == 0 else 1
        settings = self.settings._replace(activation_checkpoint_interval=interval)
        return _sums(least_layer_seconds(self.workload, settings))

    def way(self, stage: int, start: int, stop: int) -> int | None:
        """0: plainly; 1: recomputing; None: the layers start to stop - 1 fit in no open way."""
        if not self._memory:
            return self._ways[0]
        span = self.workload.span(start, stop)
        key = (stage, span)
        if key not in self._way:
            self._way[key] = next((way for way in self._ways if self._fits(way, stage, start, stop)), None)
        return self._way[key]

    def intervals(self, ways: Sequence[int], partition: Sequence[int]) -> tuple[int, ...]:
        """What a step's time depends on of the stages' intervals: whether they recompute; and how much is
        kept, where that is offloaded."""
        if not self.settings.offload_activations:
            return tuple(ways)
        return tuple(
            [
                self.interval(way, stage, start, stop)
                for stage, (way, (start, stop)) in enumerate(zip(ways, pairwise(partition), strict=True))
            ]
        )

    def interval(self, way: int, stage: int, start: int, stop: int) -> int:
        """The checkpoint interval that needs least memory; of equal ones the shortest. Where what is kept is
        offloaded, of those that fit the one that waits least for it."""
        key = (way, stage, self.workload.span(start, stop))
        if key not in self._best:
            self._best[key] = self._best_interval(way, stage, start, stop)
        return self._best[key]

    def _best_interval(self, way: int, stage: int, start: int, stop: int) -> int:
        tried = self._intervals(way, start, stop)
        if not self.settings.offload_activations or way == 0:
            return min(tried, key=lambda interval: self._peak(interval, stage, start, stop))
        limit = self._most_bytes(stage)
        return min(
            tried,
            key=lambda interval: (
                (peak := self._peak(interval, stage, start, stop)) > limit,
                self._offload_seconds(interval, stage, start, stop),
                peak,
            ),
        )

    def _offload_seconds(self, interval: int, stage: int, start: int, stop: int) -> float:
        settings = self.settings._replace(activation_checkpoint_interval=interval)
        return self.workload.times.stage_tail(settings, stage, start, stop).offload_seconds

    def _most_bytes(self, stage: int) -> int:
        capacity = self.workload.capacity_of(self.settings, stage)
        return capacity if self._limit is None else min(capacity, self._limit)

    def reduce_seconds(self, stage: int, start: int, stop: int) -> float:
        """Of the stage's gradients, after its last backward."""
        return self.tail(stage, start, stop).reduce_seconds

    def tail(self, stage: int, start: int, stop: int) -> StageTail:
        """What the stage does besides its micro-batches, waits for offloaded activations left out."""
        key = (stage, self.workload.span(start, stop))
        if key not in self._tails:
            self._tails[key] = self.workload.times.stage_tail(self.settings, stage, start, stop)
        return self._tails[key]

    def _fits(self, way: int, stage: int, start: int, stop: int) -> bool:
        """Part of a stage that fits fits too: of stretches of equal layers, few are asked about."""
        run = self.workload.equal_layers(start, stop)
        if run is None:
            return self._fits_somehow(way, stage, start, stop)
        key, length = (way, stage, run), stop - start
        fit, miss = self._most.get(key, (0, self.layers + 1))
        if length <= fit or length >= miss:
            return length <= fit
        fits = self._fits_somehow(way, stage, start, stop)
        self._most[key] = (length, miss) if fits else (fit, length)
        return fits

    def _fits_somehow(self, way: int, stage: int, start: int, stop: int) -> bool:
        limit = self._most_bytes(stage)
        return any(
            self._peak(interval, stage, start, stop) <= limit
            for interval in self._intervals(way, start, stop)
        )

    def _intervals(self, way: int, start: int, stop: int) -> tuple[int, ...]:
        if way == 0:
            return (0,)
        if self._interval is not None:
            return (self._interval,)
        return segment_intervals(stop - start, self.workload.blocks)

    def _peak(self, interval: int, stage: int, start: int, stop: int) -> int:
        settings = self.settings._replace(activation_checkpoint_interval=interval)
        return self.workload.memory(settings, stage, start, stop).peak_bytes


@lru_cache(maxsize=256)
def _sums(seconds: tuple[float, ...]) -> tuple[float, ...]:
    return (0.0, *accumulate(seconds))


@lru_cache(maxsize=1024)
def segment_intervals(layers: int, most: int) -> tuple[int, ...]:
    """For each number of segments of so many layers the shortest interval that makes as many, rising.

    An interval k makes ceil(layers / k) segments; of those that make equally many the shortest recomputes
    least at a time. None is longer than `most`.
    """
    shortest = {-(-layers // interval): interval for interval in range(layers, 0, -1)}
    return tuple(sorted(interval for interval in shortest.values() if interval <= most))
