"""One candidate: does it fit, where are its stages cut, and what did it lack if not."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from itertools import pairwise
from typing import NamedTuple

from vdsgen.cost.memory import StageBytes
from vdsgen.cost.settings import Settings
from vdsgen.planner.host_memory import Shortage, host_miss
from vdsgen.planner.partition import partition
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
    shortage: Shortage | None = None
    """Where the GPUs have room, and what is offloaded has none."""

    @property
    def biggest_component(self) -> str:
        if self.shortage is not None:
            return self.shortage.resource
        return max(COMPONENTS, key=lambda name: int(getattr(self.memory, f"{name}_bytes")))


def place(workload: Workload, settings: Settings) -> Placed | Miss:
    """The fastest partition that fits; or what is missing."""
    seconds = workload.times.layer_seconds(settings)
    stages = settings.pipeline_parallel_size
    fastest = partition(seconds, workload.is_block, stages, _anything)
    assert fastest is not None, "rules keep the stages at most as many as the blocks"
    placed = _examined(workload, settings, fastest)
    if isinstance(placed, Placed) or stages == 1:
        return placed
    fitting = partition(seconds, workload.is_block, stages, partial(workload.fits, settings))
    return placed if fitting is None else _examined(workload, settings, fitting)


def least_memory(workload: Workload, settings: Settings) -> Placed | Miss:
    """The partition whose fullest stage holds least, whatever its speed."""
    return _even_out(workload, settings, [0.0] * workload.layers, None)


def spread(workload: Workload, placed: Placed) -> Placed:
    """As fast as `placed`, with the fullest stage as empty as can be."""
    seconds = workload.times.layer_seconds(placed.settings)
    evened = _even_out(workload, placed.settings, seconds, placed)
    # Emptier GPUs may need more of a host than it has.
    return evened if isinstance(evened, Placed) and evened.peak_bytes < placed.peak_bytes else placed


def _even_out(
    workload: Workload, settings: Settings, seconds: Sequence[float], known: Placed | None
) -> Placed | Miss:
    """Bisects the memory that stages may take, for partitions no slower than the one known to fit."""
    stages = settings.pipeline_parallel_size
    bound = None if known is None else max(sum(seconds[a:b]) for a, b in pairwise(known.partition))

    def cut(limit_bytes: int) -> tuple[int, ...] | None:
        def fits(stage: int, start: int, stop: int) -> bool:
            if bound is not None and sum(seconds[start:stop]) > bound * (1 + 1e-9):
                return False
            return workload.memory(settings, stage, start, stop).peak_bytes <= limit_bytes

        return partition(seconds, workload.is_block, stages, fits)

    whole = workload.memory(settings, 0, 0, workload.layers).peak_bytes
    low, high = 0, max(whole, known.peak_bytes if known else 0)
    best = known.partition if known else partition(seconds, workload.is_block, stages, _anything)
    while high - low > MEMORY_STEP_BYTES:
        middle = (low + high) // 2
        found = cut(middle)
        if found is None:
            low = middle
        else:
            best, high = found, middle
    assert best is not None
    return _examined(workload, settings, best)


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
    layers = (boundaries[fullest], boundaries[fullest + 1])
    if over > 0:
        return Miss(settings, fullest, layers, memories[fullest], over)
    shortage = host_miss(workload, settings, boundaries)
    if shortage is not None:
        return Miss(settings, fullest, layers, memories[fullest], shortage.over_bytes, shortage)
    return Placed(settings, boundaries, peaks[fullest])
