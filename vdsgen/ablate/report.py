"""An ablation's outcome: plans ranked by what was measured, and how well they were predicted."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from vdsgen.ablate.calibration import worth_writing
from vdsgen.ablate.fit import Fit, fit_factors, measurement_of
from vdsgen.ablate.records import Ablation, MeasuredCosts, Result
from vdsgen.ablate.statistics import kendall_tau, relative_error, root_mean_square, share_of_best


class Ranked(NamedTuple):
    """A plan that was measured."""

    result: Result
    measured: MeasuredCosts

    @property
    def name(self) -> str:
        return self.result.plan.name

    @property
    def comparable(self) -> bool:
        """What was predicted is what ran."""
        return not self.result.plan.edited

    @property
    def speed_error(self) -> float:
        """Of samples a second."""
        return relative_error(self.result.plan.predicted.samples_per_second, self.measured.samples_per_second)

    @property
    def worst_memory(self) -> tuple[int, float]:
        """The stage whose peak is predicted worst, and the relative error there."""
        predicted = self.result.plan.predicted.peak_memory_bytes_by_stage
        errors = [
            relative_error(planned, found)
            for planned, found in zip(predicted, self.measured.peak_memory_bytes_by_stage, strict=True)
        ]
        stage = max(range(len(errors)), key=lambda index: abs(errors[index]))
        return stage, errors[stage]


class Report(NamedTuple):
    """Everything that is known of an ablation."""

    ablation: Ablation
    ranked: tuple[Ranked, ...]
    """The fastest measured first."""
    other: tuple[Result, ...]
    """Plans without a result: failed, or not run yet."""
    tau: float | None
    """Kendall's tau-b between predicted and measured samples/s."""
    chosen: Ranked | None
    """The plan that the planner would have run."""
    fit: Fit | None

    @property
    def chosen_share_of_best(self) -> float | None:
        """Measured speed of the planner's choice over the best measured; None where nothing was measured."""
        if self.chosen is None:
            return None
        speeds = [one.measured.samples_per_second for one in self.ranked if one.comparable]
        return share_of_best(self.chosen.measured.samples_per_second, speeds)

    @property
    def worst_memory(self) -> tuple[Ranked, int, float] | None:
        """Plan, stage, and relative error of its peak."""
        found = [(one, *one.worst_memory) for one in self.ranked if one.comparable]
        return max(found, key=lambda entry: abs(entry[2]), default=None)

    @property
    def any_failed(self) -> bool:
        return any(result.status in ("failed", "out_of_memory") for result in self.other)


def report_of(ablation: Ablation, results: Sequence[Result]) -> Report:
    """Ranks, compares and fits; nothing is read or written."""
    ranked = sorted(
        (Ranked(result, result.measured) for result in results if result.measured and result.status == "ok"),
        key=lambda one: -one.measured.samples_per_second,
    )
    comparable = [one for one in ranked if one.comparable]
    tau = kendall_tau(
        [one.result.plan.predicted.samples_per_second for one in comparable],
        [one.measured.samples_per_second for one in comparable],
    )
    measurements = [found for result in results if (found := measurement_of(result)) is not None]
    return Report(
        ablation=ablation,
        ranked=tuple(ranked),
        other=tuple(result for result in results if result.status != "ok"),
        tau=tau,
        chosen=_chosen(comparable),
        fit=fit_factors(measurements),
    )


def _chosen(comparable: Sequence[Ranked]) -> Ranked | None:
    """The plan that `vdsgen plan` gives, where it was measured; else the one that it says is fastest."""
    own = [one for one in comparable if one.result.plan.planners_choice]
    predicted = sorted(comparable, key=lambda one: -one.result.plan.predicted.samples_per_second)
    return next(iter([*own, *predicted]), None)


def document(report: Report) -> dict[str, Any]:
    """For programs: one JSON object."""
    worst = report.worst_memory
    fit = report.fit
    return {
        "schema_version": 1,
        "experiment": report.ablation.experiment,
        "pool": report.ablation.pool.name,
        "steps": report.ablation.steps,
        "ranked": [
            {
                **one.result.model_dump(mode="json"),
                "speed_error": one.speed_error if one.comparable else None,
                "memory_error": one.worst_memory[1] if one.comparable else None,
            }
            for one in report.ranked
        ],
        "not_measured": [result.model_dump(mode="json") for result in report.other],
        "refused": [refused.model_dump(mode="json") for refused in report.ablation.refused],
        "kendall_tau": report.tau,
        "chosen": None if report.chosen is None else report.chosen.name,
        "chosen_share_of_best": report.chosen_share_of_best,
        "worst_memory_error": None
        if worst is None
        else {"plan": worst[0].name, "stage": worst[1], "relative": worst[2]},
        "fit": None
        if fit is None
        else {
            "form": fit.form,
            "plans": fit.plans,
            "factors": fit.factors.model_dump(mode="json"),
            "step_error_before": root_mean_square(fit.errors_before),
            "step_error": root_mean_square(fit.errors),
            "step_error_held_out": root_mean_square(fit.held_out_errors) if fit.held_out_errors else None,
            "worth_using": worth_writing(fit),
        },
    }
