"""Tensor and sequence parallel sizes: which are tried, what pins of them mean, and when they win."""

from __future__ import annotations

from itertools import pairwise
from math import gcd
from typing import Any

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from tests.planner.examples import pool
from vdsgen.catalog import models, profile_for
from vdsgen.cost.settings import Settings
from vdsgen.errors import InputError
from vdsgen.planner.choices.degrees import sequence_parallel_sizes, tensor_parallel_sizes
from vdsgen.planner.plan import make_plan
from vdsgen.planner.plan_settings import settings_of
from vdsgen.planner.resolve import workload_of
from vdsgen.planner.space import layouts
from vdsgen.planner.workload import Workload
from vdsgen.spec.constraints import Constraints
from vdsgen.spec.data import Data, SpaceToDepth
from vdsgen.spec.experiment import Experiment
from vdsgen.spec.lab import Pool
from vdsgen.spec.plan import Plan
from vdsgen.spec.profile import ModelProfile
from vdsgen.spec.training import Training

MODEL = models()["vdt-2.1b"].sizes.model_copy(update={"name": "vdt-2.1b"})


def profile() -> ModelProfile:
    found = profile_for(MODEL)
    assert found is not None
    return found


def experiment(batch: int = 16, **pins: Any) -> Experiment:
    return Experiment(
        name="degrees",
        model=MODEL,
        data=Data(videos="clips", frames=16, height=256, width=256, latents=SpaceToDepth(factor=8)),
        training=Training(global_batch_size=batch, steps=10),
        constraints=Constraints(**pins),
    )


def work(on: Pool, **pins: Any) -> Workload:
    return workload_of(experiment(**pins), on, profile())


def plan(on: Pool, batch: int = 16, **pins: Any) -> Plan:
    return make_plan(experiment(batch, **pins), on, profile())


@pytest.mark.parametrize(
    ("gpus", "sizes"), [(1, (1,)), (2, (1, 2)), (4, (1, 2, 4)), (6, (1, 2, 4)), (8, (1, 2, 4, 8))]
)
def test_ranks_that_share_blocks_are_on_one_node(gpus: int, sizes: tuple[int, ...]) -> None:
    on = work(pool(gpus, nodes=2))
    assert tensor_parallel_sizes(on) == sizes
    for ranks in (gpus, 2 * gpus):
        found = {layout.tensor_parallel_size for layout in layouts(on, ranks, Constraints())}
        assert found == {size for size in sizes if gpus % size == 0}
    # On part of one node it does not matter what the node has besides.
    part = {layout.tensor_parallel_size for layout in layouts(on, sizes[-1], Constraints())}
    assert part == set(sizes)


def test_layouts_use_all_ranks_whatever_they_share() -> None:
    found = layouts(work(pool(8)), 8, Constraints())
    assert {layout.world_size for layout in found} == {8}
    assert {layout.tensor_parallel_size for layout in found} == {1, 2, 4, 8}
    assert len(set(found)) == len(found)


@pytest.mark.parametrize("pinned", [1, 2, 4])
def test_a_pin_is_what_is_planned_and_what_costs_are_of(pinned: int) -> None:
    on = pool(4, 80.0)
    made = plan(on, tensor_parallel_size=pinned)
    assert made.parallel.tensor_parallel_size == pinned
    assert made.parallel.world_size == 4
    settings = settings_of(made)
    workload = work(on, tensor_parallel_size=pinned)
    partition = [stage.layers[0] for stage in made.stages] + [made.stages[-1].layers[1]]
    assert workload.times.step(settings, partition).step_seconds == made.predicted.step_seconds
    assert made.predicted.split is not None
    assert (made.predicted.split.tensor_seconds > 0) == (pinned > 1)


def test_sharing_blocks_wins_where_one_sample_is_too_large_for_a_gpu_and_there_is_one() -> None:
    """One clip a step leaves no work for data ranks, and a pipeline would be mostly bubble."""
    made = plan(pool(4, 40.0), batch=1, sequence_parallel_size=1)
    assert made.parallel.tensor_parallel_size == 4
    assert made.parallel.data_parallel_size == made.parallel.pipeline_parallel_size == 1


def test_sharing_a_sample_as_well_is_faster_than_sharing_blocks_alone() -> None:
    """It exchanges the hidden state's share twice a block, where the other exchanges all of it nine times."""
    shared, split = plan(pool(4, 80.0), batch=1), plan(pool(4, 80.0), batch=1, sequence_parallel_size=1)
    assert shared.parallel.sequence_parallel_size > 1
    assert shared.predicted.step_seconds < 0.95 * split.predicted.step_seconds
    assert shared.predicted.split is not None and split.predicted.split is not None
    assert shared.predicted.split.sequence_seconds > split.predicted.split.sequence_seconds == 0.0


@pytest.mark.parametrize(
    ("frames", "height", "sizes"),
    [(16, 256, (1, 2, 4, 8)), (12, 256, (1, 2, 4)), (16, 80, (1,)), (9, 144, (1, 3)), (16, 96, (1, 2))],
)
def test_ranks_that_share_samples_have_equal_rows_and_frames(
    frames: int, height: int, sizes: tuple[int, ...]
) -> None:
    clips = Data(videos="clips", frames=frames, height=height, width=256, latents=SpaceToDepth(factor=8))
    on = workload_of(experiment().model_copy(update={"data": clips}), pool(8), profile())
    assert sequence_parallel_sizes(on) == sizes


@given(
    data=st.sampled_from([1, 2]),
    tensor=st.sampled_from([1, 2]),
    sequence=st.sampled_from([2, 4]),
    common=st.sampled_from([2, 4]),
    micro=st.sampled_from([1, 2, 3]),
    steps=st.sampled_from([1, 3]),
    stages=st.sampled_from([1, 2]),
    zero=st.sampled_from([0, 1, 2, 3]),
    interval=st.sampled_from([0, 1, 5]),
)
@hypothesis_settings(max_examples=60, deadline=None)
def test_samples_that_ranks_need_not_share_are_better_not_shared(
    data: int,
    tensor: int,
    sequence: int,
    common: int,
    micro: int,
    steps: int,
    stages: int,
    zero: int,
    interval: int,
) -> None:
    """Why `batch_splits` leaves out micro-batches with a divisor in common with the ranks that share them."""
    common = gcd(common, sequence)
    shared = Settings(
        stages, data, min(zero, 1) if stages > 1 else zero, micro * common, steps, interval, "bf16",
        "fp32" if zero else "bf16", 50_000_000, 50_000_000,
        tensor_parallel_size=tensor, sequence_parallel_size=sequence,
    )  # fmt: skip
    other = shared._replace(
        data_parallel_size=data * common,
        sequence_parallel_size=sequence // common,
        micro_batch_size=micro,
    )
    on = work(pool(8, 80.0, nodes=8))
    partition = (0, on.layers) if stages == 1 else (0, on.layers // 2, on.layers)
    assert shared.world_size == other.world_size
    for stage, (start, stop) in enumerate(pairwise(partition)):
        more, less = (on.memory(one, stage, start, stop).peak_bytes for one in (shared, other))
        assert less <= more
    longer, shorter = (on.times.step(one, partition).step_seconds for one in (shared, other))
    assert shorter < longer


@pytest.mark.parametrize(
    ("pins", "said"),
    [
        ({"tensor_parallel_size": 5}, "5 tensor parallel ranks do not divide 24 attention heads"),
        ({"tensor_parallel_size": 8}, "tensor parallel size 8 does not divide the 4 GPUs of a node"),
        ({"tensor_parallel_size": 2, "pipeline_parallel_size": 4}, "4 x tensor 2 does not divide the 4 GPUs"),
        (
            {"tensor_parallel_size": 2, "pipeline_parallel_size": 2, "data_parallel_size": 2},
            "pipeline 2 x data 2 x tensor 2 is 8 ranks",
        ),
        ({"sequence_parallel_size": 3}, "sequence parallel size 3 does not divide the clips' 16 rows"),
        ({"sequence_parallel_size": 8}, "sequence parallel size 8 does not divide the 4 GPUs of a node"),
        (
            {"sequence_parallel_size": 4, "tensor_parallel_size": 2},
            "sequence parallel size 4 x tensor 2 does not divide the 4 GPUs of a node",
        ),
        (
            {"sequence_parallel_size": 2, "pipeline_parallel_size": 2, "data_parallel_size": 2},
            "pipeline 2 x data 2 x sequence 2 is 8 ranks",
        ),
    ],
)
def test_pins_that_cannot_be_are_refused_with_both_values(pins: dict[str, int], said: str) -> None:
    with pytest.raises(InputError) as caught:
        plan(pool(4, 80.0), **pins)
    assert said in str(caught.value)


def test_a_size_that_nobody_traced_is_refused() -> None:
    with pytest.raises(InputError) as caught:
        plan(pool(3, 80.0), batch=12, tensor_parallel_size=3)
    assert "tensor parallel size 3 costs is not known" in str(caught.value)
    assert "use 2 or 4" in str(caught.value)
