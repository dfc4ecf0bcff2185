"""What an ablation learned changes its own part of a step, and nothing else."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import pytest

from tests.cli.rendering import EXPERIMENT, planning_inputs
from vdsgen.cost.step_time import StepTime
from vdsgen.planner.plan import best_plans
from vdsgen.planner.plan_settings import settings_of
from vdsgen.planner.resolve import workload_of
from vdsgen.planner.tables import step_time_of
from vdsgen.spec.calibration import Calibration
from vdsgen.spec.step_factors import StepFactors

COMPUTE = ("compute_seconds", "bubble_seconds")
COMMUNICATION = ("reduction_seconds", "gather_seconds", "tensor_seconds", "offload_seconds")


PIPELINES = f"{EXPERIMENT}constraints: {{pipeline_parallel_size: 2}}\n"


def times(
    folder: Path, factors: StepFactors | None, inputs: str = EXPERIMENT
) -> list[tuple[StepTime, float]]:
    """Of many plans of one pool, with the lower bound that the search goes by."""
    lab, experiment, profile = planning_inputs(folder, experiment=inputs)
    plans = best_plans(experiment, lab.pools[0], profile, 40)
    pool = lab.pools[0].model_copy(
        update={"calibration": None if factors is None else Calibration(step_factors=factors)}
    )
    workload = workload_of(experiment, pool, profile)
    found = []
    for plan in plans:
        boundaries = [*(stage.layers[0] for stage in plan.stages), plan.stages[-1].layers[1]]
        bound = workload.times.lower_bound_seconds(settings_of(plan), boundaries)
        found.append((step_time_of(plan, workload), bound))
    return found


@pytest.mark.parametrize(
    ("factors", "scaled", "parts"),
    [
        (StepFactors(compute_factor=1.7), 1.7, COMPUTE),
        (StepFactors(recompute_factor=3.0), 3.0, ("recompute_seconds",)),
        (StepFactors(communication_factor=2.5), 2.5, COMMUNICATION),
        (StepFactors(optimizer_factor=0.5), 0.5, ("optimizer_seconds",)),
    ],
)
def test_a_factor_scales_its_parts(
    tmp_path: Path, factors: StepFactors, scaled: float, parts: tuple[str, ...]
) -> None:
    single = 0
    for (before, _), (after, _) in zip(times(tmp_path, None), times(tmp_path, factors), strict=True):
        if len(before.stages) > 1 and parts is not COMPUTE:
            continue  # transfers hide a part of a stage's reduction
        single += 1
        for name in StepTime._fields:
            if name.endswith("_seconds") and name != "transfer_seconds" and len(before.stages) == 1:
                expected = getattr(before, name) * (scaled if name in parts else 1)
                assert getattr(after, name) == pytest.approx(expected, rel=1e-9, abs=1e-12), name
        for name in parts:
            assert getattr(after, name) >= min(1, scaled) * getattr(before, name) * (1 - 1e-9)
    assert single > 3


def test_transfers_between_stages_are_communication(tmp_path: Path) -> None:
    slow = times(tmp_path, StepFactors(communication_factor=3.0), PIPELINES)
    longer = [
        (before.transfer_seconds, after.transfer_seconds)
        for (before, _), (after, _) in zip(times(tmp_path, None, PIPELINES), slow, strict=True)
        if before.transfer_seconds > 0
    ]
    assert len(longer) > 3
    assert all(2 * before < after < 6 * before for before, after in longer)


def test_the_overhead_is_added_to_every_step_and_to_its_bound(tmp_path: Path) -> None:
    with_overhead = times(tmp_path, StepFactors(overhead_seconds=0.25))
    for (before, bound), (after, after_bound) in zip(times(tmp_path, None), with_overhead, strict=True):
        assert after.step_seconds == pytest.approx(before.step_seconds + 0.25)
        assert after_bound == pytest.approx(bound + 0.25)
        assert after_bound <= after.step_seconds * (1 + 1e-9)


def test_bounds_stay_bounds_under_any_factors(tmp_path: Path) -> None:
    factors = StepFactors(
        compute_factor=1.3, communication_factor=4.0, optimizer_factor=2.0, overhead_seconds=0.01
    )
    steps = times(tmp_path, factors)
    assert all(bound <= time.step_seconds * (1 + 1e-9) for time, bound in steps)
    assert any(later[0].step_seconds != sooner[0].step_seconds for sooner, later in pairwise(steps))
