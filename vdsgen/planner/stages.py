"""What the stages of one settings variant take and hold, for any stretch of layers: what boundaries are
chosen by.

A stage runs plainly where it fits so, since recomputing only ever adds time; else it recomputes as little as
it must, of its first layers, in the segments that need least memory. The other stages' ways matter to none.

A layer is kept, recomputed selectively (its products are kept) or recomputed whole: each holds less than the
one before, and takes longer. As both add up over a stage's layers, the fastest mixture that fits has two of
the three: kept and selective layers, kept and whole ones, or selective and whole ones. Each is a ladder, on
which every step recomputes one layer more. (Of layers so small that starting operators is what takes long,
selective ones can be slower than whole ones: the mixture is then not the fastest.)

With more kept layers a stage mostly needs more memory, but not always: a last segment that is not recomputed
may need less than one that is. What it needs without recomputation does rise with them, and is a bound: the
fewest recomputed layers are those that the bound leaves, or hardly more.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping, Sequence
from functools import lru_cache
from itertools import accumulate, pairwise
from typing import Literal, NamedTuple

from vdsgen.cost.schedule import buffers_in_flight
from vdsgen.cost.settings import Settings
from vdsgen.cost.step_tail import StageTail
from vdsgen.planner.bounds import least_layer_seconds
from vdsgen.planner.workload import Workload

Ladder = Literal["selective", "whole", "mixed"]


class Way(NamedTuple):
    """How a stage's layers are run: first those that are recomputed whole, then those that keep their
    products; the others are kept."""

    whole: int = 0
    selective: int = 0

    @property
    def recomputed(self) -> int:
        return self.whole + self.selective


KEPT = Way()


class Stages:
    """One settings variant, its checkpoint intervals left open.

    `plain` and `recomputed` say which ways to run a stage are open; where both are, so is all between them,
    but for stages that offload what they keep. `interval` is that of stages that recompute, where it is
    given: those recompute all of their layers, and whole. A pin on `recompute` closes ways too.
    `limit_bytes` is what stages may hold, where that is less than their GPUs have. Without `memory` anything
    fits.
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
        self.settings = settings = settings.with_interval(0)
        self.count = settings.pipeline_parallel_size
        self.layers = workload.layers
        pinned = workload.experiment.constraints.recompute
        self._plain = plain
        self._whole = recomputed and pinned != "selective"
        self._selective = (
            recomputed
            and pinned != "full"
            and (interval is None or pinned == "selective")
            and not settings.offload_activations
            and workload.knows_selective(settings.dtype)
        )
        self._recomputed = recomputed
        self._partly = plain and recomputed and interval is None and not settings.offload_activations
        self._memory = memory
        self._limit = limit_bytes
        self._interval = interval
        times = workload.times
        by_way = (settings, settings.with_interval(1), settings.with_interval(1, 0, self.layers))
        self.instructions = times.instruction_seconds(settings)
        self.kinds = _kinds(workload, settings)
        """For each stage the first one of its kind: stretches of layers take and hold as much on both."""
        forward = {kind: _sums(times.forward_seconds(settings, kind)) for kind in set(self.kinds)}
        busy = {
            kind: tuple(_sums(times.layer_seconds(one, kind)) for one in by_way) for kind in set(self.kinds)
        }
        self.forward = [forward[kind] for kind in self.kinds]
        self._busy = [busy[kind] for kind in self.kinds]
        self.sends = [times.boundary_seconds(settings, stage) for stage in range(self.count - 1)]
        self._way: dict[tuple[int, int], Way | None] = {}
        self._most: dict[tuple[object, ...], tuple[int, int]] = {}
        self._best: dict[tuple[object, ...], int] = {}
        self._tails: dict[tuple[int, int], StageTail] = {}
        self._settings: dict[tuple[int, int, int], Settings] = {}
        self._last = 0
        self._fewest: dict[tuple[object, ...], dict[int, int]] = {}
        """Of stretches that differ in length alone, by length: how few layers they can recompute; more than
        they have where they do not fit."""

    @property
    def least_seconds(self) -> Sequence[float]:
        """Running sums of the layers' times where each is fastest, in the fastest of the open ways."""
        way = self.fastest_way(0, self.layers)
        settings = self.settings.with_interval(int(way != KEPT), 0, way.selective)
        return _sums(least_layer_seconds(self.workload, settings))

    @property
    def most_seconds(self) -> float:
        """Of all layers on the slowest stage, recomputing."""
        return max(seconds[-1] for busy in self._busy for seconds in busy)

    def busy_seconds(self, way: Way, stage: int, start: int, stop: int) -> float:
        """One micro-batch through the layers, forward and backward."""
        plain, whole, selective = self._busy[stage]
        partly = start + way.whole
        plainly = partly + way.selective
        busy = whole[partly] - whole[start] + plain[stop] - plain[plainly]
        return busy + (selective[plainly] - selective[partly])

    def fastest_way(self, start: int, stop: int) -> Way:
        """How the layers would be run, were there memory enough."""
        if self._plain:
            return KEPT
        return Way(0, stop - start) if self._selective else Way(stop - start)

    def way(self, stage: int, start: int, stop: int) -> Way | None:
        """How the layers start to stop - 1 are run; None where they fit in no open way."""
        if not self._memory:
            return self.fastest_way(start, stop)
        kind = self.kinds[stage]
        key = (kind, self.workload.span(start, stop))
        if key not in self._way:
            self._way[key] = self._fastest_that_fits(kind, start, stop)
        return self._way[key]

    def fits_emptiest(self, stage: int, start: int, stop: int) -> bool:
        """Whether the layers start to stop - 1 fit with all recomputed, whole where that is open; fewer may
        still do where a last segment that is kept needs less than one that is not."""
        return not self._memory or self._fits("emptiest", self.kinds[stage], start, stop)

    def chosen(self, ways: Sequence[Way], partition: Sequence[int]) -> Settings:
        """With an interval, plain layers and selective ones for each stage."""
        spans = enumerate(pairwise(partition))
        each = zip(ways, spans, strict=True)
        intervals = [self.interval(way, stage, start, stop) for way, (stage, (start, stop)) in each]
        return self.settings.with_intervals(tuple(intervals), *self._by_stage(ways, partition))

    def timed(self, ways: Sequence[Way], partition: Sequence[int]) -> Settings:
        """`chosen` as far as a step's time depends on it: how long segments are matters only where what they
        keep is offloaded."""
        if self.settings.offload_activations:
            return self.chosen(ways, partition)
        intervals = tuple([int(way != KEPT) for way in ways])
        return self.settings.with_intervals(intervals, *self._by_stage(ways, partition))

    def step_seconds(self, ways: Sequence[Way], partition: Sequence[int]) -> float:
        """By running the pipeline."""
        tails = None
        if not self.settings.offload_activations:
            spans = enumerate(pairwise(partition))
            tails = [self.tail(stage, start, stop) for stage, (start, stop) in spans]
        return self.workload.times.step_seconds(self.timed(ways, partition), partition, tails)

    @staticmethod
    def _by_stage(ways: Sequence[Way], partition: Sequence[int]) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Plain and selective layers of stages that recompute."""
        spans = zip(ways, pairwise(partition), strict=True)
        plain = tuple(
            [stop - start - way.recomputed if way.recomputed else 0 for way, (start, stop) in spans]
        )
        return plain, tuple([way.selective for way in ways])

    def interval(self, way: Way, stage: int, start: int, stop: int) -> int:
        """The checkpoint interval that needs least memory; of equal ones the shortest. Where what is kept is
        offloaded, of those that fit the one that waits least for it."""
        key = (way, stage, self.workload.span(start, stop))
        if key not in self._best:
            self._best[key] = self._best_interval(way, stage, start, stop)
        return self._best[key]

    def _best_interval(self, way: Way, stage: int, start: int, stop: int) -> int:
        tried = self._intervals(way)
        if not self.settings.offload_activations or way == KEPT:
            return min(tried, key=lambda interval: self._peak(interval, way, stage, start, stop))
        limit = self._most_bytes(stage)
        return min(
            tried,
            key=lambda interval: (
                (peak := self._peak(interval, way, stage, start, stop)) > limit,
                self._offload_seconds(interval, stage, start, stop),
                peak,
            ),
        )

    def _offload_seconds(self, interval: int, stage: int, start: int, stop: int) -> float:
        settings = self.settings.with_interval(interval)
        return self.workload.times.stage_tail(settings, stage, start, stop).offload_seconds

    def _most_bytes(self, stage: int) -> int:
        capacity = self.workload.capacity_of(self.settings, stage)
        return capacity if self._limit is None else min(capacity, self._limit)

    def reduce_seconds(self, stage: int, start: int, stop: int) -> float:
        """Of the stage's gradients, after its last backward."""
        return self.tail(stage, start, stop).reduce_seconds

    def tail(self, stage: int, start: int, stop: int) -> StageTail:
        """What the stage does besides its micro-batches, waits for offloaded activations left out."""
        kind = self.kinds[stage]
        key = (kind, self.workload.span(start, stop))
        if key not in self._tails:
            self._tails[key] = self.workload.times.stage_tail(self.settings, kind, start, stop)
        return self._tails[key]

    def _fastest_that_fits(self, stage: int, start: int, stop: int) -> Way | None:
        if self._plain and self._fits("kept", stage, start, stop):
            return KEPT
        if not self._recomputed:
            return None
        if not self._partly:
            return self._all_recomputed(stage, start, stop)
        found = self._fewest_on("selective", stage, start, stop) if self._selective else None
        if found is None and self._selective and self._whole:
            found = self._fewest_on("mixed", stage, start, stop)
        if not self._whole or not self._may_be_faster(found, stage, start, stop):
            return found
        whole = self._fewest_on("whole", stage, start, stop)
        ways = [way for way in (found, whole) if way is not None]
        return min(ways, key=lambda way: self.busy_seconds(way, stage, start, stop), default=None)

    def _all_recomputed(self, stage: int, start: int, stop: int) -> Way | None:
        """With no layer kept."""
        selective = Way(0, stop - start)
        if self._selective and self._fits_somehow(selective, stage, start, stop):
            return selective
        if self._selective and self._whole and self._interval is None:
            return self._fewest_on("mixed", stage, start, stop)
        return Way(stop - start) if self._whole and self._fits("emptiest", stage, start, stop) else None

    def _may_be_faster(self, found: Way | None, stage: int, start: int, stop: int) -> bool:
        """Whether keeping some layers and recomputing the others whole may fit in less time than `found`."""
        if found is None:
            return True
        most = self.busy_seconds(found, stage, start, stop)
        layers = range(1, stop - start + 1)
        few = bisect_left(layers, most, key=lambda way: self.busy_seconds(Way(way), stage, start, stop))
        return few > 0 and self._may_fit(Way(few), stage, start, stop)

    def _fewest_on(self, ladder: Ladder, stage: int, start: int, stop: int) -> Way | None:
        """The least recomputation that fits, of a ladder's steps."""
        layers = stop - start
        known = self._fewest.setdefault((ladder, stage, self.workload.alike(start, stop)), {})
        low, most = self._between(known, layers)
        found = None
        if low < most and self._may_fit(_step(ladder, most, layers), stage, start, stop):
            low = self._too_few(ladder, low, most, stage, start, stop)
            steps = range(low + 1, most + 1)
            fits = (
                step for step in steps
                if self._fits_somehow(_step(ladder, step, layers), stage, start, stop)
            )  # fmt: skip
            found = next(fits, None)
        known[layers] = layers + 1 if found is None else found
        return None if found is None else _step(ladder, found, layers)

    @staticmethod
    def _between(known: Mapping[int, int], layers: int) -> tuple[int, int]:
        """How many recomputed layers are surely too few, and how many are most: by what stretches of other
        lengths need, which differ in blocks alone. Where one fits, so does the same less a recomputed
        block."""
        low, most = 0, layers
        for length, way in known.items():
            if length < layers:
                low = max(low, way - 1 if way == 1 else way - 1 + layers - length)
            elif way <= length:
                most = min(most, max(1, way - (length - layers)))
        return min(low, layers), most

    def _too_few(self, ladder: Ladder, low: int, high: int, stage: int, start: int, stop: int) -> int:
        """The highest of a ladder's steps that is too low even without recomputation; `low` is, `high` not.
        What a stretch of another length needs is mostly hardly less, so that near `low` one looks first."""
        step = 1 if low else high
        while high - low > 1:
            middle = min(low + step, (low + high) // 2)
            step *= 2
            if self._may_fit(_step(ladder, middle, stop - start), stage, start, stop):
                high = middle
            else:
                low = middle
        return low

    def _may_fit(self, way: Way, stage: int, start: int, stop: int) -> bool:
        settings = self._with(max(1, way.whole), way, stop - start)
        return self.workload.least_peak_bytes(settings, stage, start, stop) <= self._most_bytes(stage)

    def _fits(self, how: Literal["kept", "emptiest"], stage: int, start: int, stop: int) -> bool:
        """With all layers kept, or all recomputed so that least is held. Part of a stage that fits fits too:
        of stretches of equal layers, few are asked about."""
        length = stop - start
        way = KEPT
        if how == "emptiest" and self._recomputed:
            way = Way(length) if self._whole else Way(0, length)
        run = self.workload.equal_layers(start, stop)
        if run is None:
            return self._fits_somehow(way, stage, start, stop)
        key = (how, stage, run)
        fit, miss = self._most.get(key, (0, self.layers + 1))
        if length <= fit or length >= miss:
            return length <= fit
        fits = self._fits_somehow(way, stage, start, stop)
        self._most[key] = (length, miss) if fits else (fit, length)
        return fits

    def _fits_somehow(self, way: Way, stage: int, start: int, stop: int) -> bool:
        limit, tried = self._most_bytes(stage), self._intervals(way)
        if self._last in tried:  # what did for another stretch often does for this one
            tried = (self._last, *tried)
        for interval in tried:
            if self._peak(interval, way, stage, start, stop) <= limit:
                self._last = interval
                return True
        return False

    def _intervals(self, way: Way) -> tuple[int, ...]:
        if not way.whole:
            return (int(way.selective > 0),)
        if self._interval is not None:
            return (self._interval,)
        return segment_intervals(way.whole, self.workload.blocks)

    def _peak(self, interval: int, way: Way, stage: int, start: int, stop: int) -> int:
        settings = self._with(interval, way, stop - start)
        return self.workload.memory(settings, stage, start, stop).peak_bytes

    def _with(self, interval: int, way: Way, layers: int) -> Settings:
        """The settings with this way for stages of so many layers."""
        plain = layers - way.recomputed if way.recomputed else 0
        key = (interval, plain, way.selective)
        if key not in self._settings:
            self._settings[key] = self.settings.with_interval(*key)
        return self._settings[key]


def _step(ladder: Ladder, step: int, layers: int) -> Way:
    """Of so many layers."""
    if ladder == "whole":
        return Way(step)
    return Way(0, step) if ladder == "selective" else Way(step, layers - step)


def _kinds(workload: Workload, settings: Settings) -> tuple[int, ...]:
    """Stages of one kind have the same GPUs and links, and hold as many micro-batches. An all-to-all's links
    also depend on where a stage's ranks lie."""
    if settings.gradient_compression != "none":
        return tuple(range(settings.pipeline_parallel_size))
    stages, micro_batches = settings.pipeline_parallel_size, settings.gradient_accumulation_steps
    firsts: dict[tuple[int, int], int] = {}
    return tuple(
        firsts.setdefault((kind, buffers_in_flight(stage, stages, micro_batches)), stage)
        for stage, kind in enumerate(workload.stage_kinds(settings))
    )


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
