"""The search space: every layout, batch split, ZeRO stage, interval and precision that pins leave open."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product
from math import gcd
from typing import NamedTuple

from vdsgen.cost.settings import Settings
from vdsgen.planner.choices.activations import packing_choices
from vdsgen.planner.choices.communication import communication_choices
from vdsgen.planner.choices.degrees import (
    sequence_parallel_sizes,
    shares_a_node,
    tensor_parallel_sizes,
)
from vdsgen.planner.choices.offload import offload_choices
from vdsgen.planner.numerics import accumulation_dtype, dtypes
from vdsgen.planner.plan_settings import as_trained
from vdsgen.planner.workload import Workload
from vdsgen.spec.constraints import Constraints

ZERO_STAGES = (0, 1, 2, 3)

BUCKET_ELEMENTS = 50_000_000
"""Elements of a reduce or gather bucket, at most: 0.1 GB in half precision.

The engine's default of 500,000,000 costs 1 GB of memory a bucket (2 GB in fp32); at a tenth of it a
collective still runs for milliseconds, a thousand times its latency.
"""


class Layout(NamedTuple):
    """How ranks are shared between pipeline stages, data-parallel groups, and ranks that share a layer."""

    pipeline_parallel_size: int
    data_parallel_size: int
    tensor_parallel_size: int = 1
    sequence_parallel_size: int = 1

    @property
    def world_size(self) -> int:
        return (
            self.pipeline_parallel_size
            * self.data_parallel_size
            * self.tensor_parallel_size
            * self.sequence_parallel_size
        )

    def __str__(self) -> str:
        text = f"pipeline {self.pipeline_parallel_size} x data {self.data_parallel_size}"
        for name, size in (("tensor", self.tensor_parallel_size), ("sequence", self.sequence_parallel_size)):
            text += f" x {name} {size}" if size > 1 else ""
        return text


def layout_of(settings: Settings) -> Layout:
    """How a candidate's ranks are shared."""
    return Layout(
        settings.pipeline_parallel_size,
        settings.data_parallel_size,
        settings.tensor_parallel_size,
        settings.sequence_parallel_size,
    )


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
        Layout(stages, world_size // tensor // sequence // stages, tensor, sequence)
        for tensor, sequence in product(tensor_parallel_sizes(workload), sequence_parallel_sizes(workload))
        if world_size % (tensor * sequence) == 0 and shares_a_node(workload, world_size, tensor * sequence)
        for stages in divisors(world_size // tensor // sequence)
        if stages <= workload.blocks
        and pins.pipeline_parallel_size in (None, stages)
        and pins.data_parallel_size in (None, world_size // tensor // sequence // stages)
    ]


def batch_splits(workload: Workload, layout: Layout) -> list[tuple[int, int]]:
    """(micro-batch size, accumulation steps) whose product is exact, small micro-batches first.

    Ranks share samples only where there are not enough of them: of s ranks that share b samples and a common
    divisor g, s / g could share b / g samples, with g times as many data ranks. Each rank would then have as
    many tokens as before, and would exchange less: that is faster and needs no more memory, and is searched
    unless pins forbid it. No micro-batch is larger than the profile's costs hold for.
    """
    global_batch_size = workload.experiment.training.global_batch_size
    pins, most = workload.experiment.constraints, workload.profile.most_samples
    if global_batch_size % layout.data_parallel_size:
        return []
    share, sequence = global_batch_size // layout.data_parallel_size, layout.sequence_parallel_size
    settled = (pins.sequence_parallel_size, pins.data_parallel_size, pins.micro_batch_size)
    free = settled == (None, None, None)
    return [
        (micro, share // micro)
        for micro in divisors(share)
        if pins.micro_batch_size in (None, micro)
        and (most is None or micro <= most)
        and pins.gradient_accumulation_steps in (None, share // micro)
        and not (free and gcd(micro, sequence) > 1)
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
        splits = batch_splits(workload, layout)
        for dtype, zero_stage, (micro, steps) in product(
            dtypes(training, workload.pool), zero_stages, splits
        ):
            settings = Settings(
                pipeline_parallel_size=layout.pipeline_parallel_size,
                data_parallel_size=layout.data_parallel_size,
                tensor_parallel_size=layout.tensor_parallel_size,
                sequence_parallel_size=layout.sequence_parallel_size,
                zero_stage=zero_stage,
                micro_batch_size=micro,
                gradient_accumulation_steps=steps,
                activation_checkpoint_interval=0,
                dtype=dtype,
                gradient_accumulation_dtype=accumulation_dtype(training, dtype, zero_stage),
                reduce_bucket_elements=bucket,
                allgather_bucket_elements=bucket,
            )
            settings = as_trained(settings, training)
            for offloaded, left in offload_choices(workload, settings, tried):
                for packed, remaining in packing_choices(workload, offloaded, left):
                    for chosen in communication_choices(workload, packed):
                        yield Family(chosen, remaining)


def bucket_elements(workload: Workload) -> int:
    """No larger than the model, and even (rule allgather-bucket-even)."""
    trainable = workload.profile.trainable_parameters
    return min(BUCKET_ELEMENTS, trainable + trainable % 2)
