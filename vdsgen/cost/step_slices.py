"""One optimizer step on the clock: every instruction of every stage, and what a step waits for besides.

The schedule's seconds are those that a plan's prediction is made of. Where the prediction has one sum of
something that happens several times (ZeRO-2's and 3's reductions, ZeRO-3's gathers) it is shared evenly among
them.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

from vdsgen.cost.schedule import StageTimes
from vdsgen.cost.schedule_slices import Slice, pipeline_slices, shared_slices
from vdsgen.cost.settings import Settings
from vdsgen.cost.sizes import MeanStepTimeModel
from vdsgen.cost.step import StepTimeModel
from vdsgen.cost.step_tail import StageTail

BESIDES = {
    "DataWait": "waiting for clips",
    "GatherParameters": "gathering parameters",
    "OffloadTraffic": "traffic with host memory",
    "Overhead": "fixed overhead",
}
"""Names of slices that are no instructions of the engine's, in words."""


class StepSlices(NamedTuple):
    """One step, or an excerpt of it."""

    slices: tuple[Slice, ...]
    """By stage, then by time."""
    stages: int
    micro_batches: int
    """As many are shown."""
    left_out: int
    """Micro-batches of the step beyond those: they repeat the steady part."""
    recompute_seconds: tuple[float, ...]
    """Of each stage: what of every backward is its forward once more."""

    @property
    def end_seconds(self) -> float:
        return max(one.end_seconds for one in self.slices)

    def of_stage(self, stage: int) -> list[Slice]:
        return [one for one in self.slices if one.stage == stage]


def shown_micro_batches(stages: int, micro_batches: int) -> int:
    """How many tell everything: the pipeline fills, is steady for some, and drains."""
    return min(micro_batches, max(stages + 6, 16))


def step_slices(
    times: StepTimeModel | MeanStepTimeModel,
    settings: Settings,
    partition: Sequence[int],
    micro_batches: int | None = None,
) -> StepSlices:
    """Of a plan with these boundaries; of its first `micro_batches`, were there no more."""
    total = settings.gradient_accumulation_steps
    shown = shown_micro_batches(len(partition) - 1, total) if micro_batches is None else micro_batches
    stages = times.stage_times(settings, partition)
    tails = [times.stage_tail(settings, *span) for span in _spans(partition)]
    waiting = _data_seconds(times, settings, partition)
    run = _run(times, settings, partition, stages, shown)
    run = [_later(one, waiting) for one in run]
    if len(stages) == 1:
        run = _with_collectives(run, settings, tails[0], total)
    found = [*run, *_tail(times, settings, run, tails)]
    if waiting > 0:
        found += [Slice(stage, "DataWait", None, 0.0, waiting) for stage in range(len(stages))]
    found.sort(key=lambda one: (one.stage, one.begin_seconds))
    return StepSlices(
        slices=tuple(found),
        stages=len(stages),
        micro_batches=shown,
        left_out=total - shown,
        recompute_seconds=_recomputed(times, settings, partition, stages),
    )


def _spans(partition: Sequence[int]) -> list[tuple[int, int, int]]:
    return [(stage, start, stop) for stage, (start, stop) in enumerate(pairwise(partition))]


def _run(
    times: StepTimeModel | MeanStepTimeModel,
    settings: Settings,
    partition: Sequence[int],
    stages: Sequence[StageTimes],
    micro_batches: int,
) -> list[Slice]:
    transfers = [
        times.boundary_seconds(settings, stage)[boundary - 1]
        for stage, boundary in enumerate(partition[1:-1])
    ]
    model = times.models[0] if isinstance(times, MeanStepTimeModel) else times
    sharing = model.hardware.sharing
    if sharing is None:
        return pipeline_slices(stages, transfers, micro_batches)
    return shared_slices(stages, transfers, micro_batches, sharing, settings.stage_ranks)


def _data_seconds(
    times: StepTimeModel | MeanStepTimeModel, settings: Settings, partition: Sequence[int]
) -> float:
    return times.step(settings, partition).data_seconds


def _later(one: Slice, seconds: float) -> Slice:
    return one._replace(begin_seconds=one.begin_seconds + seconds, end_seconds=one.end_seconds + seconds)


def _with_collectives(
    run: Sequence[Slice], settings: Settings, tail: StageTail, micro_batches: int
) -> list[Slice]:
    """What ZeRO-2 and 3 send in every micro-batch, put where it is sent; the rest comes later by as much."""
    each_reduction = tail.reduce_seconds / micro_batches if settings.zero_stage >= 2 else 0.0
    each_gather = tail.gather_seconds / (2 * micro_batches) if settings.zero_stage == 3 else 0.0
    if not (each_reduction or each_gather):
        return list(run)
    found: list[Slice] = []
    late = 0.0
    for one in run:
        moved = _later(one, late)
        if each_gather:
            begin = moved.begin_seconds
            found.append(Slice(0, "GatherParameters", one.micro_batch, begin, begin + each_gather))
            late, moved = late + each_gather, _later(moved, each_gather)
        found.append(moved)
        if one.name == "BackwardPass" and each_reduction:
            end = moved.end_seconds
            found.append(Slice(0, "ReduceGrads", one.micro_batch, end, end + each_reduction))
            late += each_reduction
    return found


def _tail(
    times: StepTimeModel | MeanStepTimeModel,
    settings: Settings,
    run: Sequence[Slice],
    tails: Sequence[StageTail],
) -> list[Slice]:
    """After the last backward: each stage reduces, all wait for each other, then each part of the slowest."""
    ends = [max(one.end_seconds for one in run if one.stage == stage) for stage in range(len(tails))]
    found: list[Slice] = []
    if settings.zero_stage < 2:
        for stage, tail in enumerate(tails):
            if tail.reduce_seconds > 0:
                end = ends[stage] + tail.reduce_seconds
                found.append(Slice(stage, "ReduceGrads", None, ends[stage], end))
                ends[stage] = end
    now = max(ends)
    model = times.models[0] if isinstance(times, MeanStepTimeModel) else times
    gathers = settings.zero_stage != 3
    parts = (
        ("OffloadTraffic", [tail.offload_seconds for tail in tails]),
        ("OptimizerStep", [tail.optimizer_seconds for tail in tails]),
        ("GatherParameters", [tail.gather_seconds if gathers else 0.0 for tail in tails]),
        ("Overhead", [model.hardware.factors.overhead_seconds] * len(tails)),
    )
    for name, seconds in parts:
        for stage, own in enumerate(seconds):
            if own > 0:
                found.append(Slice(stage, name, None, now, now + own))
        now += max(seconds)
    return found


def _recomputed(
    times: StepTimeModel | MeanStepTimeModel,
    settings: Settings,
    partition: Sequence[int],
    stages: Sequence[StageTimes],
) -> tuple[float, ...]:
    if not settings.checkpoints:
        return (0.0,) * len(stages)
    plain = times.stage_times(without_checkpointing(settings), partition)
    return tuple(
        max(0.0, one.backward_seconds - other.backward_seconds)
        for one, other in zip(stages, plain, strict=True)
    )


def without_checkpointing(settings: Settings) -> Settings:
    """The same, with every activation kept."""
    return settings.with_interval(0)._replace(offload_activations=False, activation_compression="none")
