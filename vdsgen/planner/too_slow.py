"""Which settings variants are surely slower than what is known, before boundaries are looked for.

Of so many blocks, some stage has at least an even share. Were it cut anywhere, and all other layers as fast
as can be: when would it be through? A stage that holds more is through later: what it adds to its own work on
every micro-batch is no less than what it waits less for later stages.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator, Sequence
from itertools import accumulate, pairwise

from vdsgen.planner.spans import earliest_end, span_of
from vdsgen.planner.stages import Stages


def step_lower_bound(stages: Stages) -> float:
    """Seconds of a step, whatever the boundaries: memory, and so recomputation, are not asked about."""
    share = _Share(stages)
    least = min(share.earliest_end(*span) for span in share.spans())
    return stages.workload.times.step_lower_bound(stages.settings, least, common_lower_bound(stages))


def some_partition_fits(stages: Stages) -> bool:
    """Whether each stage as long as it can be, from the first on, is a partition that fits; where none is
    found, there may still be one."""
    start = 0
    for stage in range(stages.count - 1):
        stop = _longest_that_fits(stages, stage, start)
        if stop is None:
            return False
        start = stop
    return stages.fits_emptiest(stages.count - 1, start, stages.layers)


def _longest_that_fits(stages: Stages, stage: int, start: int) -> int | None:
    """Where this stage stops at the latest, and leaves a block for each later one."""
    blocks_before, behind = stages.workload.blocks_before, stages.count - 1 - stage
    first = bisect_left(blocks_before, blocks_before[start] + 1)
    stops = range(first, bisect_left(blocks_before, blocks_before[-1] - behind + 1))
    fitting = bisect_left(stops, True, key=lambda stop: not stages.fits_emptiest(stage, start, stop))
    return stops[fitting - 1] if fitting else None


def common_lower_bound(stages: Stages) -> float:
    """Seconds after the last reduction that any partition needs: of the stage with most blocks."""
    workload, times, settings = stages.workload, stages.workload.times, stages.settings
    if stages.count == 1:
        tail = times.stage_tail(settings, 0, 0, workload.layers)
        return times.common_seconds([tail])
    share = workload.least_share(stages.count)
    if share is None:
        return times.common_seconds([])
    start, stop = share
    distinct = workload.distinct_stages(settings)
    tails = [times.stage_tail(settings, stage, start, stop) for stage in distinct]
    return min(times.common_seconds([tail]) for tail in tails)


class _Share:
    """Each stage with an even share of the blocks, wherever it may be cut."""

    def __init__(self, stages: Stages) -> None:
        self.stages = stages
        self.blocks_before = stages.workload.blocks_before
        self.blocks = -(-self.blocks_before[-1] // stages.count)
        self.busy = stages.least_seconds
        self.forward = _least_sums(stages.forward)
        sends = [self._least_send(stage) for stage in range(stages.count - 1)]
        self.sent_before = (0.0, *accumulate(sends))
        """By stage: one way, from the first stage to this one."""
        self.sends = (0.0, *sends, 0.0)
        """By stage: to it from the one before."""

    def spans(self) -> Iterator[tuple[int, int, int]]:
        """(stage, start, stop) with as many blocks before and behind as there are stages."""
        before, count, layers = self.blocks_before, self.stages.count, self.stages.layers
        blocks = before[-1]
        for stage in range(count):
            behind = count - 1 - stage
            first = bisect_left(before, stage)
            # More layers than the last stage must have only take it longer.
            last = bisect_left(before, blocks - behind - self.blocks + 1) - 1
            starts = range(first, last + 1) if behind else range(last, last + 1)
            for start in starts if stage else (0,):
                stop = bisect_left(before, before[start] + self.blocks) if behind else layers
                yield stage, start, stop

    def earliest_end(self, stage: int, start: int, stop: int) -> float:
        stages = self.stages
        ahead, behind = stage, stages.count - 1 - stage
        span = span_of(stages, stage, start, stop, stages.fastest_way(start, stop))
        sent_before = self.sent_before[stage] - self.sends[stage]
        sent_behind = self.sent_before[-1] - self.sent_before[stage] - self.sends[stage + 1]
        before = (
            self.forward[start] + ahead * stages.instructions + sent_before,
            self.busy[start] + 2 * (ahead * stages.instructions + sent_before),
        )
        later = self.busy[-1] - self.busy[stop] + 2 * (behind * stages.instructions + sent_behind)
        beside = self.sends[stage] + self.sends[stage + 1]
        return earliest_end(stages, stage, span, before, beside, later)

    def _least_send(self, stage: int) -> float:
        """What the transfer from `stage` to the next takes at least."""
        before, behind = self.blocks_before, self.stages.count - 1 - stage
        first = bisect_left(before, stage + 1)
        beyond = bisect_left(before, before[-1] - behind + 1)
        return min(self.stages.sends[stage][first - 1 : beyond - 1])


def _least_sums(of_stages: Sequence[tuple[float, ...]]) -> tuple[float, ...]:
    """Running sums of each layer's least time on any stage, from each stage's running sums."""
    distinct = list(dict.fromkeys(of_stages))
    if len(distinct) == 1:
        return distinct[0]
    layers = [[stop - start for start, stop in pairwise(sums)] for sums in distinct]
    return (0.0, *accumulate(min(each) for each in zip(*layers, strict=True)))
