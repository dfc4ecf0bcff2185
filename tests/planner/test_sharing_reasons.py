"""Why ranks share blocks or clips is told beside what as many data ranks would take."""

from __future__ import annotations

import pytest

from tests.planner.examples import experiment, pool, profile
from tests.planner.test_degrees import plan
from vdsgen.planner.plan import make_plan
from vdsgen.planner.words import percent
from vdsgen.spec.plan import Plan


def reason(made: Plan, name: str) -> str:
    (found,) = [one for one in made.reasons if one.startswith(f"{name} parallel size")]
    return found


def test_whole_clips_are_compared_at_their_best() -> None:
    made = make_plan(experiment(8, global_batch_size=8), pool(4, 2.8), profile(8))
    assert made.parallel.sequence_parallel_size > 1
    told = reason(made, "Sequence")
    ranks = made.parallel.data_parallel_size * made.parallel.sequence_parallel_size
    assert f"pipeline {made.parallel.pipeline_parallel_size} x data {ranks} at its best" in told
    whole = make_plan(
        experiment(
            8,
            global_batch_size=8,
            constraints={
                "sequence_parallel_size": 1,
                "data_parallel_size": ranks,
                "pipeline_parallel_size": made.parallel.pipeline_parallel_size,
            },
        ),
        pool(4, 2.8),
        profile(8),
    )
    longer = whole.predicted.step_seconds / made.predicted.step_seconds - 1
    assert longer > 0
    assert f"{percent(longer)} longer" in told


def test_a_batch_without_clips_for_as_many_data_ranks_is_named() -> None:
    made = plan(pool(4, 80.0), batch=1)
    assert "a global batch of 1 cannot be shared evenly between" in reason(made, "Sequence")


@pytest.mark.parametrize("name", ["tensor", "sequence"])
def test_a_pin_is_called_one_and_none_is_told_of_nothing_shared(name: str) -> None:
    made = plan(pool(4, 80.0), **{f"{name}_parallel_size": 2})
    assert reason(made, name.capitalize()) == f"{name.capitalize()} parallel size 2 is pinned."
    alone = plan(pool(4, 80.0), tensor_parallel_size=1, sequence_parallel_size=1)
    assert not any("parallel size" in one for one in alone.reasons)
