"""Seconds that a step takes at least, whatever the boundaries: from sums alone."""

from __future__ import annotations

from math import inf

from vdsgen.cost.settings import Settings
from vdsgen.planner.numerics import dtypes
from vdsgen.planner.space import Layout, batch_splits
from vdsgen.planner.workload import Workload


def shares_of_a_pipeline(stages: int, micro_batches: int, longest: float = 1.0) -> float:
    """A pipeline's makespan at least, in units of an equal stage's time for one micro-batch, where some stage
    takes x >= `longest` >= 1 of them.

    What stands before that stage takes b, what lies behind p - b - x, and the bounds of
    `schedule.stage_end_lower_bounds` add up to b + m x + max(0, 2 (p - b - x) - (k - 1) x) where it holds
    k < m micro-batches, and as k - 1 >= p - 1 - b / x stages of at most x lie behind, to no less than
    m x + max(0, 2 p - (p + 1) x): for m > p that rises with x; else it is least at 2 m p / (p + 1). Where
    k >= m, they add up to b + m x + (p - b - x) - (m - 1) x / 2, no less than p + (m - 1) x / 2.
    A micro-batch passes all p units, and the stage works for m x of them.
    """
    p, m, x = stages, micro_batches, longest
    if m > p:
        return m * x + max(0.0, 2 * p - (p + 1) * x)
    return max(float(p), m * x, min(p + (m - 1) * x / 2, 2 * m * p / (p + 1)))


def settings_bound(workload: Workload, settings: Settings) -> float:
    """Of one settings variant, whatever its boundaries and intervals (an interval of its own is taken for all
    stages): no activation is recomputed that need not be, and transfers take no time."""
    times, stages = workload.times, settings.pipeline_parallel_size
    distinct = workload.distinct_stages(settings)
    least = sum(least_layer_seconds(workload, settings))
    least += 2 * stages * times.instruction_seconds(settings)
    steps = settings.gradient_accumulation_steps
    if stages == 1:
        tail = times.stage_tail(settings, 0, 0, workload.layers)
        return times.step_lower_bound(
            settings, steps * least + tail.reduce_seconds, times.common_seconds([tail])
        )
    share = workload.least_share(stages)
    longest = 1.0
    if share is not None:
        block = min(times.layer_seconds(settings, stage)[share[0]] for stage in distinct)
        longest = max(1.0, (share[1] - share[0]) * block * stages / least)
    makespan = least / stages * shares_of_a_pipeline(stages, steps, longest)
    if share is None:
        return times.step_lower_bound(settings, makespan, times.common_seconds([]))
    common = min(times.common_seconds([times.stage_tail(settings, stage, *share)]) for stage in distinct)
    return times.step_lower_bound(settings, makespan, common)


def layout_bound(workload: Workload, layout: Layout) -> float:
    """Of all settings of one layout: their layers alone, in the fastest batch split and precision."""
    training, pins = workload.experiment.training, workload.experiment.constraints
    stages = layout.pipeline_parallel_size
    best = inf
    for micro, steps in batch_splits(training.global_batch_size, layout, pins):
        shares = shares_of_a_pipeline(stages, steps) / stages
        for dtype in dtypes(training, workload.pool):
            for zero_stage in range(4):
                settings = Settings(
                    pipeline_parallel_size=stages,
                    data_parallel_size=layout.data_parallel_size,
                    zero_stage=zero_stage,
                    micro_batch_size=micro,
                    gradient_accumulation_steps=1,
                    activation_checkpoint_interval=0,
                    dtype=dtype,
                    gradient_accumulation_dtype=dtype,
                    reduce_bucket_elements=1,
                    allgather_bucket_elements=1,
                    tensor_parallel_size=layout.tensor_parallel_size,
                    sequence_parallel_size=layout.sequence_parallel_size,
                )
                least = sum(least_layer_seconds(workload, settings))
                best = min(best, workload.times.step_lower_bound(settings, least * shares, 0.0))
    return best


def least_layer_seconds(workload: Workload, settings: Settings) -> tuple[float, ...]:
    """Each layer's time for one micro-batch, on the kind of GPU that is fastest at it."""
    a_stage_of_kind = {kind: stage for stage, kind in enumerate(workload.device_classes(settings))}
    found = [workload.times.layer_seconds(settings, stage) for stage in a_stage_of_kind.values()]
    return found[0] if len(found) == 1 else tuple(min(each) for each in zip(*found, strict=True))
