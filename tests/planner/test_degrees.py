"""Tensor parallel sizes: which are tried, what pins of them mean, and when they win."""

from __future__ import annotations

from typing import Any

import pytest

from tests.planner.examples import pool
from vdsgen.catalog import models, profile_for
from vdsgen.errors import InputError
from vdsgen.planner.choices.degrees import tensor_parallel_sizes
from vdsgen.planner.plan import make_plan
from vdsgen.planner.plan_settings import settings_of
from vdsgen.planner.resolve import workload_of
from vdsgen.planner.space import layouts
from vdsgen.planner.workload import Workload
from vdsgen.spec.experiment import Constraints, Data, Experiment, SpaceToDepth, Training
from vdsgen.spec.lab import Pool
from vdsgen.spec.plan import Plan
from vdsgen.spec.profile import ModelProfile

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
    made = plan(pool(4, 40.0), batch=1)
    assert made.parallel.tensor_parallel_size == 4
    assert made.parallel.data_parallel_size == made.parallel.pipeline_parallel_size == 1


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
