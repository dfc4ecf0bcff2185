"""A traced step as slices: the engine's instructions by rank, on one clock, and what their time went to."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from vdsgen.report.trace_events import Slice
from vdsgen.runs.traces import ScheduleCapture, TracedRank, TracedStep

OWN = {
    "ForwardPass": "forward",
    "BackwardPass": "backward",
    "LoadMicroBatch": "data",
    "ReduceGrads": "reduce",
    "ReduceTiedGrads": "reduce",
    "OptimizerStep": "optimizer",
    "WeightAverage": "optimizer",
}
"""What an instruction is expected to spend its time on: only what else it went to is a slice within it. Sends
and receives wait and transfer."""
DIGITS = 7
"""As traces are written: sums of figures so rounded are exact in nanoseconds, so that slices stay within
others."""


def began(pairs: Sequence[tuple[TracedRank, TracedStep]]) -> float:
    """When the first rank begins, by the common clock."""
    return min(step.began for _, step in pairs)


def instruction_slices(pairs: Sequence[tuple[TracedRank, TracedStep]], zero: float) -> Iterator[Slice]:
    """Seconds since `zero`."""
    for rank, step in pairs:
        for one in step.instructions:
            begin, end = _since(zero, step, one.begin), _since(zero, step, one.end)
            yield Slice(rank.stage, rank.rank_in_stage, one.name, one.micro_batch, begin, end)


def inner_slices(pairs: Sequence[tuple[TracedRank, TracedStep]], zero: float) -> Iterator[Slice]:
    """Within instructions, what is not their own work: waiting (bubble), transfer, sums, gathering."""
    for rank, step in pairs:
        activities = [one for one in step.activities if one.name != "other"]
        place = 0
        for instruction in sorted(step.instructions, key=lambda one: one.begin):
            while place < len(activities) and activities[place].end <= instruction.begin:
                place += 1
            own = OWN.get(instruction.name)
            for one in activities[place:]:
                if one.begin >= instruction.end:
                    break
                begin, end = max(one.begin, instruction.begin), min(one.end, instruction.end)
                if one.name != own and end > begin:
                    first, last = _since(zero, step, begin), _since(zero, step, end)
                    yield Slice(
                        rank.stage, rank.rank_in_stage, one.name, instruction.micro_batch, first, last
                    )


def measured_slices(capture: ScheduleCapture) -> list[Slice]:
    """All traced steps, from the beginning of the first."""
    steps = capture.steps
    if not steps:
        return []
    zero = began(capture.of_step(steps[0]))
    return [
        one
        for step in steps
        for pairs in [capture.of_step(step)]
        for one in (*instruction_slices(pairs, zero), *inner_slices(pairs, zero))
    ]


def _since(zero: float, step: TracedStep, moment: float) -> float:
    return round(round(step.began - zero, DIGITS) + moment, DIGITS)
