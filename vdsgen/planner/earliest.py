"""When a stage is through at the earliest, wherever all others are cut; and so a step, wherever all are."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator, Sequence
from itertools import accumulate, pairwise

from vdsgen.planner.spans import Span, earliest_end, span_of
from vdsgen.planner.stages import Stages


class Earliest:
    """Stages of one settings variant: each beside others whose layers are as fast, and whose transfers are as
    short, as can be. Later with every layer that a stage holds besides, since what that adds to its own work
    on every micro-batch is no less than what it waits less for later stages."""

    def __init__(self, stages: Stages) -> None:
        self.stages = stages
        self.blocks_before = stages.workload.blocks_before
        self.busy = stages.least_seconds
        self.forward = _least_sums(stages.forward)
        sends = [self._least_send(stage) for stage in range(stages.count - 1)]
        self.sends = (0.0, *sends, 0.0)
        """By stage: to it from the one before."""
        self.sent_before = (0.0, *accumulate(sends))
        """By stage: one way, from the first stage to this one."""

    def end(self, stage: int, span: Span) -> float:
        """Seconds from the start of the step until the stage has reduced its gradients, or its last
        micro-batch is back at the first stage."""
        stages = self.stages
        received, sent = self.sends[stage], self.sends[stage + 1]
        sent_before = self.sent_before[stage] - received
        sent_behind = self.sent_before[-1] - self.sent_before[stage] - sent
        instructions = stage * stages.instructions
        before = (
            self.forward[span.start] + instructions + sent_before,
            self.busy[span.start] + 2 * (instructions + sent_before),
        )
        later = self.busy[-1] - self.busy[span.stop]
        later += 2 * ((stages.count - 1 - stage) * stages.instructions + sent_behind)
        return earliest_end(stages, stage, span, before, received + sent, later)

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


def step_lower_bound(earliest: Earliest, common_seconds: float) -> float:
    """Seconds of a step, whatever the boundaries: some stage has at least an even share of the blocks.
    Memory, and so recomputation, are not asked about. `common_seconds` follow the last reduction at least."""
    stages = earliest.stages
    spans = (
        (stage, span_of(stages, stage, start, stop, stages.fastest_way(start, stop)))
        for stage, start, stop in _even_shares(stages)
    )
    least = min(earliest.end(*span) for span in spans)
    return stages.workload.times.step_lower_bound(stages.settings, least, common_seconds)


def _even_shares(stages: Stages) -> Iterator[tuple[int, int, int]]:
    """(stage, start, stop) of each stage with an even share of the blocks, wherever it may be cut: as many
    blocks are left before and behind as there are stages."""
    before, count, layers = stages.workload.blocks_before, stages.count, stages.layers
    share = -(-before[-1] // count)
    for stage in range(count):
        behind = count - 1 - stage
        last = bisect_left(before, before[-1] - behind - share + 1) - 1
        if stage == 0:
            starts = range(1)
        elif behind:
            starts = range(bisect_left(before, stage), last + 1)
        else:  # more layers only take the last stage longer
            starts = range(last, last + 1)
        for start in starts:
            yield stage, start, bisect_left(before, before[start] + share) if behind else layers


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
