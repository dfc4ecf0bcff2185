"""Bucket sizes that fit the memory that is left: fewer, larger messages wait for fewer latencies.

The search compares plans with buckets of BUCKET_ELEMENTS. A variant that fits in no way is tried once more
with SMALL_BUCKET_ELEMENTS; and the buckets of what is chosen are doubled as long as every stage fits, and no
further than the step gets shorter. Only sizes that the engine reads are touched: without ZeRO it reduces in
buckets of its own (runtime/engine.py:3828, 0.19.8), BF16_Optimizer reduces in those too, and ZeRO-3 gathers
by parameters.
"""

from __future__ import annotations

from itertools import pairwise

from vdsgen.cost.engine_optimizer import engine_optimizer
from vdsgen.cost.settings import Settings
from vdsgen.planner.place import Placed
from vdsgen.planner.workload import Workload

SMALL_BUCKET_ELEMENTS = 5_000_000
"""0.01 GB in half precision: all that buckets can give up is then theirs no more."""
LARGEST_BUCKET_ELEMENTS = 500_000_000
"""The engine's default (zero/config.py, reduce_bucket_size and allgather_bucket_size)."""
SHORTER = 1e-3
"""Relative: a step that is shorter by less is no reason to fill memory."""


def read_sizes(settings: Settings) -> tuple[str, ...]:
    """The bucket sizes that the engine reads with these settings."""
    if engine_optimizer(settings) == "BF16_Optimizer":
        return ("allgather_bucket_elements",)
    by_stage: dict[int, tuple[str, ...]] = {
        0: (),
        1: ("reduce_bucket_elements", "allgather_bucket_elements"),
        2: ("reduce_bucket_elements", "allgather_bucket_elements"),
        3: ("reduce_bucket_elements",),
    }
    return by_stage[settings.zero_stage]


def with_small_buckets(settings: Settings) -> Settings | None:
    """The same with small buckets; None where the engine reads no size that is larger."""
    changes = {
        name: SMALL_BUCKET_ELEMENTS
        for name in read_sizes(settings)
        if getattr(settings, name) > SMALL_BUCKET_ELEMENTS
    }
    return settings._replace(**changes) if changes else None  # type: ignore[arg-type]


def fitted_buckets(workload: Workload, placed: Placed) -> Placed:
    """`placed` with the buckets that fit: no slower, and within every stage's memory."""
    trainable = workload.profile.trainable_parameters
    largest = min(LARGEST_BUCKET_ELEMENTS, trainable + trainable % 2)
    best = placed
    for name in read_sizes(placed.settings):
        elements = getattr(best.settings, name)
        while elements < largest:
            elements = min(2 * elements, largest)
            settings = best.settings._replace(**{name: elements})
            spans = list(enumerate(pairwise(best.partition)))
            peaks = [workload.memory(settings, stage, *span).peak_bytes for stage, span in spans]
            if any(peak > workload.capacity_of(settings, stage) for stage, peak in enumerate(peaks)):
                break
            seconds = workload.times.step_seconds(settings, best.partition)
            if seconds < best.step_seconds * (1 - SHORTER):
                best = best._replace(settings=settings, peak_bytes=max(peaks), step_seconds=seconds)
    return best
