"""One candidate: does it fit, where are its stages cut, and what did it lack if not."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from math import inf
from typing import NamedTuple

from vdsgen.cost.memory import StageBytes
from vdsgen.cost.settings import Settings
from vdsgen.planner.boundaries import Cut, TooSlow, fastest_cut
from vdsgen.planner.host_memory import Shortage, host_miss
from vdsgen.planner.partition import partition
from vdsgen.planner.stages import Stages
from vdsgen.planner.workload import Workload

MEMORY_STEP_BYTES = 16 * 1024**2
"""How finely peaks of the stages are evened out."""

COMPONENTS = ("parameters", "gradients", "optimizer", "activations", "workspace", "communication", "reserve")


class Placed(NamedTuple):
    """Settings that fit, and the partition they fit with."""

    settings: Settings
    partition: tuple[int, ...]
    peak_bytes: int
    """Of the fullest stage."""
    step_seconds: float
    gap: float = 0.0
    """By how much, relative, another partition of these settings could be faster at most; 0: none can."""
    timed: int = 1
    """Partitions that were run through the pipeline to find it."""


class Miss(NamedTuple):
    """Settings that do not fit: the stage that lacks most, where stages are cut as evenly as can be."""

    settings: Settings
    stage: int
    layers: tuple[int, int]
    """First layer of the stage, and one past the last."""
    memory: StageBytes
    over_bytes: int
    shortage: Shortage | None = None
    """Where the GPUs have room, and what is offloaded has none."""

    @property
    def biggest_component(self) -> str:
        if self.shortage is not None:
            return self.shortage.resource
        return max(COMPONENTS, key=lambda name: int(getattr(self.memory, f"{name}_bytes")))


def place(workload: Workload, settings: Settings) -> Placed | Miss:
    """The fastest partition that fits, with the checkpoint interval that the settings name; or what is
    missing. Settings with plain or selective layers recompute as little as they must, in any segments."""
    found = fastest(_stages(workload, settings))
    interval = settings.activation_checkpoint_interval
    return found if isinstance(found, Placed) else nearest_to_fitting(workload, settings, (interval,))


def place_faster(workload: Workload, settings: Settings, than_seconds: float) -> Placed | None:
    """As `place`, in less time, where a step may take less than so long; mostly None where it does not."""
    found = fastest(_stages(workload, settings), than_seconds)
    return found if isinstance(found, Placed) else None


def _stages(workload: Workload, settings: Settings) -> Stages:
    if settings.stage_plain_layers or settings.stage_selective_layers:
        return Stages(workload, settings, plain=True, recomputed=True)
    interval = settings.activation_checkpoint_interval
    return Stages(workload, settings, plain=interval == 0, recomputed=interval > 0, interval=interval)


def fastest(stages: Stages, give_up_at: float = inf) -> Placed | TooSlow | None:
    """The fastest partition that fits, each stage running in one of its open ways; None where none fits. See
    `fastest_cut`."""
    workload = stages.workload
    cut = fastest_cut(stages, give_up_at)
    if not isinstance(cut, Cut):
        return cut
    spans = [(stage, start, stop) for stage, (start, stop) in enumerate(pairwise(cut.partition))]
    chosen = stages.chosen(cut.ways, cut.partition)
    peak = max(workload.memory(chosen, *span).peak_bytes for span in spans)
    if host_miss(workload, chosen, cut.partition) is not None:
        return None  # what is moved is hardly less with other boundaries
    return Placed(chosen, cut.partition, peak, cut.step_seconds, cut.gap, cut.timed)


def nearest_to_fitting(workload: Workload, settings: Settings, intervals: Sequence[int]) -> Miss:
    """What settings that do not fit lack where stages are equally long, with the best of these intervals for
    the stage that lacks most."""
    seconds = workload.times.layer_seconds(settings)
    boundaries = partition(seconds, workload.is_block, settings.pipeline_parallel_size, _anything)
    assert boundaries is not None, "rules keep the stages at most as many as the blocks"
    first = settings.with_interval(intervals[0])
    _, fullest = _fullest(workload, first, boundaries)
    span = (fullest, boundaries[fullest], boundaries[fullest + 1])
    best = min(
        (settings.with_interval(interval) for interval in intervals),
        key=lambda one: workload.memory(one, *span).peak_bytes,
    )
    over, fullest = _fullest(workload, best, boundaries)
    start, stop = boundaries[fullest : fullest + 2]
    memory = workload.memory(best, fullest, start, stop)
    shortage = host_miss(workload, best, boundaries) if over <= 0 else None
    lacking = over if shortage is None else shortage.over_bytes
    return Miss(best, fullest, (start, stop), memory, lacking, shortage)


def spread(workload: Workload, placed: Placed) -> Placed:
    """As fast as `placed`, with the fullest stage as empty as can be, and no more stages that recompute.

    Mostly little can be evened out: one looks close below what is known first.
    """
    settings = placed.settings
    ways = [settings.checkpoint_interval(stage) > 0 for stage in range(settings.pipeline_parallel_size)]
    pinned = workload.experiment.constraints.activation_checkpoint_interval
    best, low, high = placed, 0, placed.peak_bytes
    no_slower = placed.step_seconds * (1 + 1e-9)
    step = MEMORY_STEP_BYTES
    while settings.pipeline_parallel_size > 1 and high - low > MEMORY_STEP_BYTES:
        middle = max(high - step, (low + high) // 2)
        step *= 2
        stages = Stages(
            workload,
            settings.with_intervals((0,) * len(ways)),
            plain=not all(ways) or any(settings.stage_plain_layers),
            recomputed=any(ways),
            interval=pinned,
            limit_bytes=middle,
        )
        found = fastest(stages, give_up_at=no_slower)
        # A bound below it lets a slower partition be found.
        if (
            isinstance(found, Placed)
            and found.step_seconds <= no_slower
            and _recomputing(found.settings) <= sum(ways)
        ):
            best, high = found, middle
        else:
            low = middle
    return best


def _recomputing(settings: Settings) -> int:
    """How many stages recompute."""
    return sum(settings.checkpoint_interval(stage) > 0 for stage in range(settings.pipeline_parallel_size))


def least_memory(workload: Workload, settings: Settings) -> Miss:
    """Settings that fit in no way, with the partition whose fullest stage holds least, whatever its speed."""
    stages, seconds = settings.pipeline_parallel_size, [0.0] * workload.layers

    def cut(limit_bytes: int) -> tuple[int, ...] | None:
        def fits(stage: int, start: int, stop: int) -> bool:
            return workload.memory(settings, stage, start, stop).peak_bytes <= limit_bytes

        return partition(seconds, workload.is_block, stages, fits)

    low, high = 0, workload.memory(settings, 0, 0, workload.layers).peak_bytes
    best = partition(seconds, workload.is_block, stages, _anything)
    while high - low > MEMORY_STEP_BYTES:
        middle = (low + high) // 2
        found = cut(middle)
        if found is None:
            low = middle
        else:
            best, high = found, middle
    assert best is not None
    over, fullest = _fullest(workload, settings, best)
    layers = (best[fullest], best[fullest + 1])
    return Miss(settings, fullest, layers, workload.memory(settings, fullest, *layers), over)


def _anything(_stage: int, _start: int, _stop: int) -> bool:
    return True


def _fullest(workload: Workload, settings: Settings, boundaries: Sequence[int]) -> tuple[int, int]:
    """By how many bytes the stage that lacks most is too large, and which it is."""
    over = [
        workload.memory(settings, stage, start, stop).peak_bytes - workload.capacity_of(settings, stage)
        for stage, (start, stop) in enumerate(pairwise(boundaries))
    ]
    return max(over), over.index(max(over))
