"""One candidate: does it fit, where are its stages cut, and what did it lack if not."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from itertools import pairwise
from typing import NamedTuple

from vdsgen.cost.memory import StageBytes
from vdsgen.cost.settings import Settings
from vdsgen.planner.partition import StageSeconds, partition, slowest_seconds
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


class Miss(NamedTuple):
    """Settings that do not fit: the stage that lacks most, where stages are cut as evenly as can be."""

    settings: Settings
    stage: int
    layers: tuple[int, int]
    """First layer of the stage, and one past the last."""
    memory: StageBytes
    over_bytes: int

    @property
    def biggest_component(self) -> str:
        return max(COMPONENTS, key=lambda name: int(getattr(self.memory, f"{name}_bytes")))


def place(workload: Workload, settings: Settings) -> Placed | Miss:
    """The fastest partition that fits; or what is missing."""
    seconds = stage_seconds(workload, settings)
    stages = settings.pipeline_parallel_size
    fastest = partition(seconds, workload.is_block, _anything)
    assert fastest is not None, "rules keep the stages at most as many as the blocks"
    placed = _examined(workload, settings, fastest)
    if isinstance(placed, Placed) or stages == 1:
        return placed
    fitting = partition(seconds, workload.is_block, partial(workload.fits, settings))
    return placed if fitting is None else _examined(workload, settings, fitting)


def stage_seconds(workload: Workload, settings: Settings) -> StageSeconds:
    """What each layer takes on each stage; the same tuple for stages with the same kind of GPU."""
    by_class: dict[int, Sequence[float]] = {}
    return [
        by_class.setdefault(kind, workload.times.layer_seconds(settings, stage))
        for stage, kind in enumerate(workload.device_classes(settings))
    ]


def _no_time(workload: Workload, settings: Settings) -> StageSeconds:
    return [(0.0,) * workload.layers] * settings.pipeline_parallel_size


def least_memory(workload: Workload, settings: Settings) -> Placed | Miss:
    """The partition whose fullest stage holds least, whatever its speed."""
    return _even_out(workload, settings, _no_time(workload, settings), None)


def spread(workload: Workload, placed: Placed) -> Placed:
    """As fast as `placed`, with the fullest stage as empty as can be."""
    seconds = stage_seconds(workload, placed.settings)
    evened = _even_out(workload, placed.settings, seconds, placed)
    assert isinstance(evened, Placed)
    before, after = (_fullest(workload, one.settings, one.partition) for one in (placed, evened))
    return evened if after < before else placed


def _even_out(
    workload: Workload, settings: Settings, seconds: StageSeconds, known: Placed | None
) -> Placed | Miss:
    """Bisects the memory that stages may take, for partitions no slower than the one known to fit.

    Where GPUs differ, the limit is that of the largest; others must leave as much of theirs.
    """
    smaller = _missing_bytes(workload, settings)
    bound = None if known is None else slowest_seconds(seconds, known.partition)

    def cut(limit_bytes: int) -> tuple[int, ...] | None:
        def fits(stage: int, start: int, stop: int) -> bool:
            if bound is not None and sum(seconds[stage][start:stop]) > bound * (1 + 1e-9):
                return False
            return workload.memory(settings, stage, start, stop).peak_bytes <= limit_bytes - smaller[stage]

        return partition(seconds, workload.is_block, fits)

    whole = workload.memory(settings, 0, 0, workload.layers).peak_bytes + max(smaller)
    low, high = 0, max(whole, _fullest(workload, settings, known.partition) if known else 0)
    best = known.partition if known else partition(seconds, workload.is_block, _anything)
    while high - low > MEMORY_STEP_BYTES:
        middle = (low + high) // 2
        found = cut(middle)
        if found is None:
            low = middle
        else:
            best, high = found, middle
    assert best is not None
    return _examined(workload, settings, best)


def _missing_bytes(workload: Workload, settings: Settings) -> list[int]:
    """For each stage how much smaller its GPUs are than the largest."""
    capacities = [workload.capacity_of(settings, stage) for stage in range(settings.pipeline_parallel_size)]
    return [max(capacities) - capacity for capacity in capacities]


def _fullest(workload: Workload, settings: Settings, boundaries: tuple[int, ...]) -> int:
    """The peak of the fullest stage, were its GPU as large as the largest and as much of it free."""
    smaller = _missing_bytes(workload, settings)
    return max(
        workload.memory(settings, stage, start, stop).peak_bytes + smaller[stage]
        for stage, (start, stop) in enumerate(pairwise(boundaries))
    )


def _anything(_stage: int, _start: int, _stop: int) -> bool:
    return True


def _examined(workload: Workload, settings: Settings, boundaries: tuple[int, ...]) -> Placed | Miss:
    memories = [
        workload.memory(settings, stage, start, stop)
        for stage, (start, stop) in enumerate(pairwise(boundaries))
    ]
    peaks = [memory.peak_bytes for memory in memories]
    fullest = max(range(len(peaks)), key=lambda stage: peaks[stage] - workload.capacity_of(settings, stage))
    over = peaks[fullest] - workload.capacity_of(settings, fullest)
    if over > 0:
        layers = (boundaries[fullest], boundaries[fullest + 1])
        return Miss(settings, fullest, layers, memories[fullest], over)
    return Placed(settings, boundaries, peaks[fullest])
