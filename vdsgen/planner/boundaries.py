"""Which boundaries make a step of one settings variant fastest: dynamic programming for a bound, then branch
and bound with the pipeline itself.

A partition's step is its pipeline's makespan with each stage's reduction, and what follows. No stage s can
finish before `schedule.stage_end_lower_bounds` says: what comes before it, its own work on every micro-batch,
and its waits for later stages. Of those, what comes before and after a stage is bounded by the least time in
which so many stages can hold so many layers (two sums by dynamic programming), and then the least possible
maximum over all stages is a bottleneck path (a third). Branch and bound cuts from the last stage to the
first, so that what lies behind is known exactly, takes the most promising cut first, and runs the pipeline at
each leaf: what can be no faster than the best leaf is left out. Mostly the first leaf meets the bound.
"""

from __future__ import annotations

from itertools import pairwise
from math import inf
from typing import NamedTuple

from vdsgen.planner.balanced import balanced_seconds, some_partition_fits
from vdsgen.planner.earliest import Earliest, common_lower_bound, step_lower_bound
from vdsgen.planner.limits import ROUNDING, BusyLimit, StepLimit
from vdsgen.planner.spans import Span, earliest_end, span_of
from vdsgen.planner.stages import Stages, Way

MOST_LEAVES = 64
"""Partitions of one settings variant that are timed, at most: the best of them is within `Cut.gap` of any."""
MOST_LEAVES_ON_SHARED_CORES = 6
"""There running a pipeline takes longer, and bounds are coarser."""
MOST_NODES = 20_000
EXACT_LEAVES = 12
"""After so many, a partition must be better by CLOSE to be looked for; `Cut.gap` says how close one is."""
CLOSE = 1e-3
MOST_MOVES = 128
"""Partitions that are timed besides where not all that may be better were: small moves of the best one."""


class Cut(NamedTuple):
    """The best boundaries that were found."""

    partition: tuple[int, ...]
    ways: tuple[Way, ...]
    """How each stage's layers are run."""
    step_seconds: float
    bound_seconds: float
    """No partition's step is shorter."""
    timed: int
    """Partitions that were run through the pipeline."""

    @property
    def gap(self) -> float:
        """By how much, relative, a better partition could beat this one; 0 where none can."""
        return max(0.0, self.step_seconds / self.bound_seconds - 1)


class TooSlow(NamedTuple):
    """A variant that fits, and is no faster than what is wanted."""

    bound_seconds: float
    timed: int = 0
    """As of a Cut."""


class Tables:
    """The sums and bottlenecks of one settings variant, for stages within a limit."""

    def __init__(self, stages: Stages, limit: BusyLimit | StepLimit) -> None:
        self.stages = stages
        self.count, self.layers = stages.count, stages.layers
        self.limit = limit
        self.spans: list[dict[int, list[Span]]] = [{} for _ in range(self.count)]
        """By stage and start."""
        self.after: list[dict[int, float]] = [{} for _ in range(self.count + 1)]
        """By stage and start: the least that this stage and all later ones take for one micro-batch."""
        self.before: list[dict[int, tuple[float, float]]] = [{} for _ in range(self.count + 1)]
        """By stage and start: the least that one micro-batch takes before it, forward and both ways."""
        self.bottleneck: list[dict[int, float]] = [{} for _ in range(self.count)]
        """By stage and stop: the least of the largest bounds of this stage and all before it."""
        self.ending: list[dict[int, list[Span]]] = [{} for _ in range(self.count)]
        """By stage and stop."""
        self._from_the_back()
        self._from_the_front()

    @property
    def bound_seconds(self) -> float:
        """Before what follows the last reduction; inf where nothing fits."""
        return self.bottleneck[-1].get(self.layers, inf)

    def _from_the_back(self) -> None:
        workload, layers = self.stages.workload, self.layers
        blocks_before = workload.blocks_before
        blocks = blocks_before[-1]
        least = self.stages.least_seconds
        self.after[self.count][layers] = 0.0
        for stage in range(self.count - 1, -1, -1):
            behind = self.after[stage + 1]
            if not behind:
                return
            nearest = min(behind)
            farthest = stage * self.limit.most_busy
            starts = range(layers) if stage else range(1)
            for start in starts:
                if blocks_before[start] < stage:
                    continue
                if least[start] > farthest:
                    break
                found = []
                for stop in range(max(start + 1, nearest), layers + 1):
                    if stop not in behind:
                        continue
                    in_span = blocks_before[stop] - blocks_before[start]
                    if in_span < 1 or blocks - blocks_before[stop] < self.count - 1 - stage:
                        continue
                    span = self._span(stage, start, stop)
                    if span is None:
                        break  # longer ones neither
                    found.append(span)
                if found:
                    self.spans[stage][start] = found
                    self.after[stage][start] = min(
                        span.busy + 2 * self._sent(stage, span.stop) + behind[span.stop] for span in found
                    )

    def _span(self, stage: int, start: int, stop: int) -> Span | None:
        """None where it does not fit within the limit; its memory is asked about where it may."""
        stages = self.stages
        at_least = stages.fastest_way(start, stop)
        span = span_of(stages, stage, start, stop, at_least)
        if self.limit.excludes(stage, span):
            return None
        way = stages.way(stage, start, stop)
        if way is None or way == at_least:
            return None if way is None else span
        span = span_of(stages, stage, start, stop, way)
        return None if self.limit.excludes(stage, span) else span

    def _from_the_front(self) -> None:
        if 0 not in self.after[0]:
            return
        self.before[0][0] = (0.0, 0.0)
        for stage in range(self.count):
            following, bottleneck, ending = self.before[stage + 1], self.bottleneck[stage], self.ending[stage]
            for start, (forward, both) in self.before[stage].items():
                received = self._sent(stage - 1, start)
                so_far = self.bottleneck[stage - 1][start] if stage else 0.0
                for span in self.spans[stage].get(start, ()):
                    stop = span.stop
                    once = (forward + span.forward + received, both + span.busy + 2 * received)
                    known = following.get(stop)
                    following[stop] = (
                        once if known is None else (min(once[0], known[0]), min(once[1], known[1]))
                    )
                    later = self.after[stage + 1][stop]
                    least = max(so_far, self.stage_bound(stage, span, later))
                    if least < bottleneck.get(stop, inf):
                        bottleneck[stop] = least
                    ending.setdefault(stop, []).append(span)

    def stage_bound(self, stage: int, span: Span, later: float) -> float:
        """See `earliest_end`; `later` is what one micro-batch takes through later stages and back."""
        beside = self._sent(stage - 1, span.start) + self._sent(stage, span.stop)
        return earliest_end(self.stages, stage, span, self.before[stage][span.start], beside, later)

    def _sent(self, stage: int, boundary: int) -> float:
        """What the transfer from `stage` to the next takes; nothing before the first and after the last."""
        if stage < 0 or stage >= self.count - 1:
            return 0.0
        return self.stages.sends[stage][boundary - 1]

    def through(self, stage: int, span: Span) -> float:
        """What the span adds to what one micro-batch takes behind the stage before it."""
        return span.busy + 2 * self._sent(stage, span.stop)


def fastest_cut(stages: Stages, give_up_at: float = inf) -> Cut | TooSlow | None:
    """The boundaries with the shortest step; None where none fit. No partition is timed where none can be
    shorter than `give_up_at`, but for a balanced one: stages that surely make a step longer than its are not
    asked about.
    """
    if stages.workload.times.shares_cores:
        return _near_even_cut(stages, give_up_at)
    earliest, common = Earliest(stages), common_lower_bound(stages)
    if give_up_at < inf:
        bound = step_lower_bound(earliest, common)
        # What is as slow but for rounding may still be shorter.
        if bound > give_up_at * (1 + ROUNDING) and some_partition_fits(stages):
            return TooSlow(bound)
    known = balanced_seconds(stages) if stages.count > 1 else None
    timed = int(known is not None)
    if known is None:
        limit = StepLimit(earliest, common, inf)
    else:
        limit = StepLimit(earliest, common, min(known, give_up_at))
    branching = _Branching(Tables(stages, limit))
    bound = branching.finished(branching.tables.bound_seconds)
    if known is None and bound == inf:
        return None
    if bound >= give_up_at:
        return TooSlow(bound, timed)
    cut = branching.run()
    cut = cut._replace(timed=cut.timed + timed)
    if cut.gap <= ROUNDING and cut.step_seconds <= limit.step_seconds:
        return cut
    return _closer(stages, cut)


def _closer(stages: Stages, cut: Cut) -> Cut:
    """The better of `cut` and what is found among all stages that do not take as long as its step by
    themselves: where not all partitions can be timed, other bounds have others timed first."""
    steps = stages.settings.gradient_accumulation_steps
    other = _Branching(Tables(stages, BusyLimit(stages, cut.step_seconds / steps))).run()
    best = min(other, cut, key=lambda one: one.step_seconds)
    bound = min(other.bound_seconds, best.step_seconds)
    return best._replace(bound_seconds=bound, timed=cut.timed + other.timed)


def _near_even_cut(stages: Stages, give_up_at: float) -> Cut | TooSlow | None:
    """Where ranks share cores, bounds are coarse and few partitions are timed: of those whose stages are
    hardly longer than an even share, if any of them fits."""
    steps = stages.settings.gradient_accumulation_steps
    least = stages.least_seconds
    longest_layer = max(stop - start for start, stop in pairwise(least))
    most = least[-1] / stages.count + longest_layer + 2 * stages.instructions
    while True:
        limit = BusyLimit(stages, most)
        tables = Tables(stages, limit)
        if tables.bound_seconds < inf:
            branching = _Branching(tables)
            bound = branching.finished(tables.bound_seconds)
            if bound < give_up_at:
                return branching.run()
            if limit.is_none or most >= give_up_at / steps:
                return TooSlow(bound)
            most = give_up_at / steps
        elif limit.is_none:
            return None
        else:
            most *= 2


class _Branching:
    """Branch and bound over the boundaries, from the last to the first."""

    def __init__(self, tables: Tables) -> None:
        self.tables = tables
        self.stages = tables.stages
        self.times = tables.stages.workload.times
        self.settings = tables.stages.settings
        self.common = common_lower_bound(tables.stages)
        self.leaves_left = MOST_LEAVES_ON_SHARED_CORES if self.times.shares_cores else MOST_LEAVES
        self.nodes_left = MOST_NODES
        self.best: tuple[float, tuple[int, ...], tuple[Way, ...]] | None = None
        self.cut_off = inf
        """The least bound of what was not looked at."""
        self.timed = 0

    def run(self) -> Cut:
        self._descend(self.tables.count - 1, self.tables.layers, 0.0, 0.0, ())
        assert self.best is not None, "a bound without a partition"
        if self.cut_off < self.best[0] * (1 - ROUNDING):
            self._climb()
        seconds, partition, ways = self.best
        bound = min(seconds, max(self.cut_off, self.finished(self.tables.bound_seconds)))
        return Cut(partition, ways, seconds, bound, self.timed)

    def finished(self, bound: float) -> float:
        return self.times.step_lower_bound(self.settings, bound, self.common)

    def _descend(self, stage: int, stop: int, later: float, so_far: float, chosen: tuple[Span, ...]) -> None:
        if stage < 0:
            self._leaf(chosen)
            return
        tables = self.tables
        options = []
        for span in tables.ending[stage].get(stop, ()):
            before = tables.bottleneck[stage - 1][span.start] if stage else 0.0
            options.append((max(so_far, before, tables.stage_bound(stage, span, later)), span))
        options.sort()
        for bound, span in options:
            finished = self.finished(bound)
            if self.best is not None and finished >= self.best[0] * (1 - self._closeness()):
                self.cut_off = min(self.cut_off, finished)
                return
            if self.best is not None and (self.leaves_left <= 0 or self.nodes_left <= 0):
                self.cut_off = min(self.cut_off, finished)
                return
            self.nodes_left -= 1
            own = max(so_far, tables.stage_bound(stage, span, later))
            self._descend(stage - 1, span.start, later + tables.through(stage, span), own, (span, *chosen))

    def _closeness(self) -> float:
        return ROUNDING / 10 if self.timed < EXACT_LEAVES else CLOSE

    def _leaf(self, chosen: tuple[Span, ...]) -> None:
        self.leaves_left -= 1
        self._time((0, *(span.stop for span in chosen)), tuple(span.way for span in chosen))

    def _climb(self) -> None:
        """Where branching was cut off: moves single boundaries by a layer as long as that is faster."""
        moved, limit = True, self.timed + MOST_MOVES
        while moved and self.timed < limit:
            moved = False
            for boundary in range(1, self.tables.count):
                for step in (-1, 1):
                    assert self.best is not None
                    seconds, partition, _ = self.best
                    layer = partition[boundary] + step
                    self._try((*partition[:boundary], layer, *partition[boundary + 1 :]))
                    moved = moved or self.best[0] < seconds * (1 - ROUNDING)

    def _try(self, partition: tuple[int, ...]) -> None:
        blocks_before = self.stages.workload.blocks_before
        spans = list(enumerate(pairwise(partition)))
        if any(blocks_before[stop] <= blocks_before[start] for _, (start, stop) in spans):
            return
        ways = [self.stages.way(stage, *span) for stage, span in spans]
        fitting = tuple(way for way in ways if way is not None)
        if len(fitting) == len(ways):
            self._time(partition, fitting)

    def _time(self, partition: tuple[int, ...], ways: tuple[Way, ...]) -> None:
        self.timed += 1
        seconds = self.stages.step_seconds(ways, partition)
        if self.best is None or seconds < self.best[0]:
            self.best = (seconds, partition, ways)
