"""The search space: every layout, batch split, ZeRO stage, interval and precision that pins leave open."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product
from typing import NamedTuple

from vdsgen.cost.settings import Settings
from vdsgen.planner.numerics import accumulation_dtype, dtypes
from vdsgen.planner.workload import Workload
from vdsgen.rules.rule import Facts
from vdsgen.spec.experiment import Constraints

ZERO_STAGES = (0, 1, 2, 3)

BUCKET_ELEMENTS = 50_000_000
"""Elements of a reduce or gather bucket, at most: 0.1 GB in half precision.

The engine's default of 500,000,000 costs 1 GB of memory a bucket (2 GB in fp32); at a tenth of it a
collective still runs for milliseconds, a thousand times its latency.
"""


class Layout(NamedTuple):
    """How ranks are shared between pipeline stages and data-parallel groups."""

    pipeline_parallel_size: int
    data_parallel_size: int

    @property
    def world_size(self) -> int:
        return self.pipeline_parallel_size * self.data_parallel_size

    def __str__(self) -> str:
        return f"pipeline {self.pipeline_parallel_size} x data {self.data_parallel_size}"


class Family(NamedTuple):
    """Candidates that differ in nothing but their checkpoint interval."""

    settings: Settings
    """With interval 0."""
    intervals: tuple[int, ...]

    def at(self, interval: int) -> Settings:
        return self.settings._replace(activation_checkpoint_interval=interval)


def divisors(number: int) -> list[int]:
    """Rising."""
    small = [value for value in range(1, int(number**0.5) + 1) if number % value == 0]
    return sorted({*small, *(number // value for value in small)})


def layouts(workload: Workload, world_size: int, pins: Constraints) -> list[Layout]:
    """Layouts of so many ranks that pins allow, with at most as many stages as blocks."""
    return [
        Layout(stages, world_size // stages)
        for stages in divisors(world_size)
        if stages <= workload.blocks
        and pins.pipeline_parallel_size in (None, stages)
        and pins.data_parallel_size in (None, world_size // stages)
    ]


def batch_splits(global_batch_size: int, data_parallel_size: int, pins: Constraints) -> list[tuple[int, int]]:
    """(micro-batch size, accumulation steps) whose product is exact, small micro-batches first."""
    if global_batch_size % data_parallel_size:
        return []
    share = global_batch_size // data_parallel_size
    return [
        (micro, share // micro)
        for micro in divisors(share)
        if pins.micro_batch_size in (None, micro)
        and pins.gradient_accumulation_steps in (None, share // micro)
    ]


def intervals(workload: Workload, pipeline_parallel_size: int, pins: Constraints) -> tuple[int, ...]:
    """Checkpoint intervals worth trying: none, and the shortest one for each number of segments.

    With n layers on the fullest stage, an interval k makes ceil(n / k) segments; of the intervals that make
    equally many, the shortest recomputes least at a time.
    """
    if pins.activation_checkpoint_interval is not None:
        return (pins.activation_checkpoint_interval,)
    fullest = -(-workload.layers // pipeline_parallel_size)
    shortest = {-(-fullest // interval): interval for interval in range(fullest, 0, -1)}
    return (0, *sorted(interval for interval in shortest.values() if interval <= workload.blocks))


def families(workload: Workload, candidates: list[Layout]) -> Iterator[Family]:
    """Every family of these layouts; for given other settings, micro-batches grow."""
    training, pins = workload.experiment.training, workload.experiment.constraints
    bucket = bucket_elements(workload)
    zero_stages = ZERO_STAGES if pins.zero_stage is None else (pins.zero_stage,)
    for layout in candidates:
        tried = intervals(workload, layout.pipeline_parallel_size, pins)
        splits = batch_splits(training.global_batch_size, layout.data_parallel_size, pins)
        for dtype, zero_stage, (micro, steps) in product(
            dtypes(training, workload.pool), zero_stages, splits
        ):
            yield Family(
                Settings(
                    pipeline_parallel_size=layout.pipeline_parallel_size,
                    data_parallel_size=layout.data_parallel_size,
                    zero_stage=zero_stage,
                    micro_batch_size=micro,
                    gradient_accumulation_steps=steps,
                    activation_checkpoint_interval=0,
                    dtype=dtype,
                    gradient_accumulation_dtype=accumulation_dtype(training, dtype, zero_stage),
                    reduce_bucket_elements=bucket,
                    allgather_bucket_elements=bucket,
                ),
                tried,
            )


def bucket_elements(workload: Workload) -> int:
    """No larger than the model, and even (rule allgather-bucket-even)."""
    trainable = workload.profile.trainable_parameters
    return min(BUCKET_ELEMENTS, trainable + trainable % 2)


def facts(workload: Workload, settings: Settings) -> Facts:
    """What rules see of one candidate."""
    return Facts(
        world_size=settings.world_size,
        pipeline_parallel_size=settings.pipeline_parallel_size,
        data_parallel_size=settings.data_parallel_size,
        global_batch_size=workload.experiment.training.global_batch_size,
        micro_batch_size=settings.micro_batch_size,
        gradient_accumulation_steps=settings.gradient_accumulation_steps,
        zero_stage=settings.zero_stage,
        allgather_bucket_elements=settings.allgather_bucket_elements,
        activation_checkpoint_interval=settings.activation_checkpoint_interval,
        gradient_accumulation_dtype=settings.gradient_accumulation_dtype,
        fp16_enabled=settings.dtype == "fp16",
        bf16_enabled=settings.dtype == "bf16",
        gpu=workload.gpu_name,
        gpu_has_fp16=workload.has_rate("fp16"),
        gpu_has_bf16=workload.has_rate("bf16"),
        blocks=workload.blocks,
    )
