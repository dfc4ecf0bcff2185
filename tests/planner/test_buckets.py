"""Clips of several sizes: the largest decides memory, time is the mean, and plans say so."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.planner.examples import experiment, pool, profile
from vdsgen.errors import NoPlanFitsError
from vdsgen.planner.plan import make_plan
from vdsgen.planner.plan_settings import settings_of
from vdsgen.planner.text import plan_text
from vdsgen.planner.workload import Workload
from vdsgen.spec.plan import Plan

WIDE, TALL, LONG = (16, 256, 384), (16, 384, 256), (64, 256, 256)
PINS = {"pipeline_parallel_size": 2, "zero_stage": 1, "micro_batch_size": 2}

clip_sizes = st.tuples(
    st.integers(1, 40), st.sampled_from([128, 256, 384]), st.sampled_from([128, 256, 384])
).filter(lambda size: size != (16, 256, 256))


def on_size(frames: int, height: int, width: int) -> Workload:
    """The example with clips of this size alone."""
    alone = experiment(8, constraints=PINS)
    data = alone.data.model_copy(update={"frames": frames, "height": height, "width": width})
    return Workload(alone.model_copy(update={"data": data}), pool(), "example-gpu", profile(8))


def boundaries(plan: Plan) -> list[int]:
    return [0, *(stage.layers[1] for stage in plan.stages)]


@given(st.lists(clip_sizes, min_size=1, max_size=3, unique=True))
def test_memory_is_that_of_the_size_that_needs_most_and_time_the_mean(
    buckets: list[tuple[int, int, int]],
) -> None:
    plan = make_plan(experiment(8, constraints=PINS, buckets=tuple(buckets)), pool(4, 80.0), profile(8))
    settings, partition = settings_of(plan), boundaries(plan)
    each = [on_size(*size) for size in [(16, 256, 256), *buckets]]
    for stage, (start, stop) in enumerate(pairwise(partition)):
        alone = [one.memory(settings, stage, start, stop) for one in each]
        largest = max(alone, key=lambda memory: memory.peak_bytes - memory.reserve_bytes)
        found = plan.stages[stage].memory
        assert found.activations_bytes == largest.activations_bytes
        assert found.peak_bytes - found.reserve_bytes == largest.peak_bytes - largest.reserve_bytes
    seconds = [one.times.step(settings, partition).step_seconds for one in each]
    assert plan.predicted.step_seconds == pytest.approx(sum(seconds) / len(seconds))
    assert plan.predicted.samples_per_second == pytest.approx(16 * len(seconds) / sum(seconds))


def test_a_plan_names_the_size_that_decides() -> None:
    wanted = "Clips come in 3 sizes, one a step and each as often as the others: memory is decided by"
    of = experiment(8, buckets=(LONG, WIDE))
    plan = make_plan(of, pool(), profile(8))
    assert any(f"{wanted} 64 x 256 x 256" in reason for reason in plan.reasons)
    text = plan_text(plan, Workload(of, pool(), "example-gpu", profile(8)))
    assert "decided by 64 x 256 x 256" in " ".join(text.split())


def test_the_first_size_decides_where_it_is_the_largest() -> None:
    plan = make_plan(experiment(8, frames=64, buckets=(WIDE,)), pool(), profile(8))
    assert any("decided by 64 x 256 x 256" in reason for reason in plan.reasons)


def test_one_size_is_not_spoken_of() -> None:
    plan = make_plan(experiment(8), pool(), profile(8))
    assert not any("sizes" in reason for reason in plan.reasons)


def test_turning_clips_changes_nothing_that_is_planned() -> None:
    wide, tall = on_size(*WIDE), on_size(*TALL)
    plan = make_plan(wide.experiment, wide.pool, wide.profile)
    other = make_plan(tall.experiment, tall.pool, tall.profile)
    assert (plan.stages, plan.predicted) == (other.stages, other.predicted)


def test_where_nothing_fits_the_size_is_named_and_leaving_it_out_helps() -> None:
    small, huge = (8, 256, 256), (4096, 256, 256)
    pins = {"sequence_parallel_size": 1}
    with pytest.raises(NoPlanFitsError) as raised:
        make_plan(experiment(8, buckets=(small, huge), constraints=pins), pool(), profile(8))
    text = str(raised.value)
    assert "decided by clips of 4096 x 256 x 256" in text
    assert "leave 4096 x 256 x 256 out of data.buckets" in text
    assert "leave 8 x 256 x 256 out" not in text
    assert make_plan(experiment(8, buckets=(small,)), pool(), profile(8)).stages
