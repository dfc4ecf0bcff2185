"""Seconds that a step takes at least, whatever the boundaries: from sums alone."""

from __future__ import annotations

from math import inf

from vdsgen.cost.settings import Settings
from vdsgen.planner.numerics import dtypes
from vdsgen.planner.space import ZERO_STAGES, Layout, batch_splits
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


class LayoutBounds:
    """Bounds of many layouts of one workload: what a micro-batch takes at least, most of them share."""

    def __init__(self, workload: Workload) -> None:
        self._workload = workload
        self._dtypes = dtypes(workload.experiment.training, workload.pool)
        self._least: dict[tuple[object, ...], float] = {}

    def of(self, layout: Layout) -> float:
        """Of all settings of one layout: their layers alone, in the fastest batch split and precision."""
        stages, times = layout.pipeline_parallel_size, self._workload.times
        best = inf
        for micro, steps in batch_splits(self._workload, layout):
            shares = shares_of_a_pipeline(stages, steps) / stages
            settings = self._settings(layout, micro)
            least = self._least_seconds(settings) * shares
            best = min(best, times.step_lower_bound(settings, least, 0.0))
        return best

    def _settings(self, layout: Layout, micro: int) -> Settings:
        return Settings(
            pipeline_parallel_size=layout.pipeline_parallel_size,
            data_parallel_size=layout.data_parallel_size,
            zero_stage=0,
            micro_batch_size=micro,
            gradient_accumulation_steps=1,
            activation_checkpoint_interval=0,
            dtype=self._dtypes[0],
            gradient_accumulation_dtype=self._dtypes[0],
            reduce_bucket_elements=1,
            allgather_bucket_elements=1,
            tensor_parallel_size=layout.tensor_parallel_size,
            sequence_parallel_size=layout.sequence_parallel_size,
        )

    def _least_seconds(self, settings: Settings) -> float:
        """Of one micro-batch through all layers, in any precision and at any ZeRO stage."""
        devices, stages = self._workload.devices, range(settings.pipeline_parallel_size)
        key = (
            settings.micro_batch_size,
            settings.tensor_parallel_size,
            settings.sequence_parallel_size,
            frozenset(devices.of_stage(settings, stage) for stage in stages),
        )
        if key not in self._least:
            variants = [
                settings._replace(zero_stage=zero, dtype=dtype, gradient_accumulation_dtype=dtype)
                for dtype in self._dtypes
                for zero in ZERO_STAGES
            ]
            self._least[key] = min(sum(least_layer_seconds(self._workload, one)) for one in variants)
        return self._least[key]


def least_layer_seconds(workload: Workload, settings: Settings) -> tuple[float, ...]:
    """Each layer's time for one micro-batch, on the kind of GPU that is fastest at it."""
    a_stage_of_kind = {kind: stage for stage, kind in enumerate(workload.device_classes(settings))}
    found = [workload.times.layer_seconds(settings, stage) for stage in a_stage_of_kind.values()]
    return found[0] if len(found) == 1 else tuple(min(each) for each in zip(*found, strict=True))
