"""The loop closed: an ablation's file in the lab, and plans that predict what the machine does."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import pytest

from tests.ablate.results import ran
from tests.cli.rendering import LAB, planning_inputs
from vdsgen.ablate.calibration import CALIBRATION, write_calibration
from vdsgen.ablate.choices import choose
from vdsgen.ablate.entries import ablation_of
from vdsgen.ablate.planning import Planning
from vdsgen.ablate.records import Ablation, RunEnded
from vdsgen.ablate.report import report_of
from vdsgen.ablate.results import results_of
from vdsgen.ablate.selectors import Top
from vdsgen.ablate.statistics import relative_error, root_mean_square
from vdsgen.planner.plan import best_plans
from vdsgen.planner.resolve import workload_of
from vdsgen.planner.tables import step_time_of
from vdsgen.spec.calibration import Calibration
from vdsgen.spec.plan import Plan
from vdsgen.spec.step_factors import StepFactors

TRUE = StepFactors(
    compute_factor=1.8,
    recompute_factor=1.8,
    communication_factor=2.5,
    optimizer_factor=1.2,
    overhead_seconds=0.004,
)
"""Of the machine that runs the plans; nobody knows it."""
RATES = Calibration(fp16_matmul_tflops=30.0, memory_bandwidth_gb_per_second=700.0)


class Truth(NamedTuple):
    """A machine whose steps are those of the time model with factors of its own."""

    planning: Planning

    def step_seconds(self, plan: Plan) -> float:
        calibration = RATES.model_copy(update={"step_factors": TRUE})
        pool = self.planning.pool.model_copy(update={"calibration": calibration})
        workload = workload_of(self.planning.experiment, pool, self.planning.profile)
        return step_time_of(plan, workload).step_seconds


def planning_for(folder: Path, calibration: str = "") -> Planning:
    lab = LAB.replace("    host_memory_gib: 64\n", f"    host_memory_gib: 64\n{calibration}", 1)
    opened, experiment, profile = planning_inputs(folder, lab)
    return Planning(experiment, opened.pools[0], profile, try_anyway=False)


def measured(planning: Planning, truth: Truth, plans: int) -> tuple[Ablation, list[RunEnded]]:
    """The best plans, run on that machine."""
    choices = choose([Top(plans)], planning)
    ablation = ablation_of(planning, choices, steps=1)
    peaks = [entry.predicted.peak_memory_bytes_by_stage for entry in ablation.plans]
    journal = [
        ran(choice.name, 1, truth.step_seconds(choice.plan), peak_memory_bytes_by_stage=peak)
        for choice, peak in zip(choices.plans, peaks, strict=True)
    ]
    return ablation, journal


INLINE = "    calibration: {fp16_matmul_tflops: 30.0, memory_bandwidth_gb_per_second: 700.0}\n"


def test_plans_made_with_the_file_predict_those_measured_and_others(tmp_path: Path) -> None:
    before = planning_for(tmp_path, INLINE)
    truth = Truth(before)
    ablation, journal = measured(before, truth, 8)
    report = report_of(ablation, results_of(ablation, journal))
    assert write_calibration(tmp_path, ablation, report.fit) == tmp_path / CALIBRATION

    after = planning_for(tmp_path, f"    calibration: {CALIBRATION}\n")
    assert isinstance(after.pool.calibration, Calibration)
    assert after.pool.calibration.fp16_matmul_tflops == RATES.fp16_matmul_tflops
    errors = {
        name: [
            relative_error(plan.predicted.step_seconds, truth.step_seconds(plan))
            for plan in best_plans(planning.experiment, planning.pool, planning.profile, 30)
        ]
        for name, planning in (("before", before), ("after", after))
    }
    assert len(errors["after"]) > 20, "more plans than were measured"
    assert root_mean_square(errors["after"]) < 0.05 < 0.3 < root_mean_square(errors["before"])


def test_a_second_ablation_starts_from_the_first_one(tmp_path: Path) -> None:
    """Its predictions are the calibrated ones; its factors are of the bare time model again."""
    before = planning_for(tmp_path, INLINE)
    truth = Truth(before)
    ablation, journal = measured(before, truth, 8)
    first = report_of(ablation, results_of(ablation, journal)).fit
    assert first is not None
    write_calibration(tmp_path, ablation, first)

    again, journal = measured(planning_for(tmp_path, f"    calibration: {CALIBRATION}\n"), truth, 8)
    report = report_of(again, results_of(again, journal))
    assert max(abs(one.speed_error) for one in report.ranked) < 0.05
    assert report.fit is not None
    assert report.fit.factors.compute_factor == pytest.approx(first.factors.compute_factor, rel=0.1)
    assert root_mean_square(report.fit.errors_before) > 0.3


def test_what_is_not_worth_it_leaves_no_file(tmp_path: Path) -> None:
    planning = planning_for(tmp_path, INLINE)
    ablation, _ = measured(planning, Truth(planning), 3)
    (tmp_path / CALIBRATION).write_text("from before")
    assert write_calibration(tmp_path, ablation, None) is None
    assert not (tmp_path / CALIBRATION).exists()
