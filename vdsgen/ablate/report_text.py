"""An ablation's report on one screen, as plain text."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from vdsgen.ablate.calibration import fit_sentences, worth_writing
from vdsgen.ablate.fit import Fit
from vdsgen.ablate.progress import STATUS_WORDS
from vdsgen.ablate.records import Result
from vdsgen.ablate.report import Ranked, Report
from vdsgen.planner.tables import Table
from vdsgen.planner.text import bullets, columns
from vdsgen.planner.words import percent, rate, seconds
from vdsgen.spec.step_factors import StepFactors
from vdsgen.units import GIB


class Unit(NamedTuple):
    """What bytes are shown in."""

    name: str
    unit_bytes: int

    def shown(self, number_bytes: int) -> str:
        return f"{number_bytes / self.unit_bytes:.2f}"


GIB_UNIT, MIB_UNIT = Unit("GiB", GIB), Unit("MiB", 1024**2)


def text(report: Report) -> str:
    """For people; ends with a newline."""
    ablation = report.ablation
    rounds = max((one.measured.rounds for one in report.ranked), default=0)
    lines = [
        f"{ablation.experiment} on {ablation.pool.name}: {len(report.ranked)} of {len(ablation.plans)} plans "
        f"measured, {ablation.steps} timed steps a run, {rounds} {'round' if rounds == 1 else 'rounds'}",
        "",
    ]
    if report.ranked:
        lines += columns(_ranking(report))
        lines += bullets(_verdicts(report))
    if report.fit is not None:
        lines += ["What the measurements say of the time model", *bullets(_calibration(report.fit))]
    if report.other:
        lines += ["Without a result", *_reasons((one.plan.name, _state(one)) for one in report.other), ""]
    if ablation.refused:
        lines += ["Not run", *_reasons((one.asked_for, one.reason) for one in ablation.refused), ""]
    return "\n".join(line.rstrip() for line in lines).rstrip() + "\n"


def _ranking(report: Report) -> Table:
    peaks = [max(one.measured.peak_memory_bytes_by_stage) for one in report.ranked]
    unit = GIB_UNIT if max(peaks) >= GIB else MIB_UNIT
    head = (
        "",
        "samples/s",
        "predicted",
        "error",
        "s/step",
        "quartiles",
        "data wait",
        f"peak {unit.name}",
        "predicted",
        "error",
    )
    return Table("Measured, the fastest first", (head, *(_row(one, unit) for one in report.ranked)))


def _row(one: Ranked, unit: Unit) -> tuple[str, ...]:
    plan, measured = one.result.plan, one.measured
    low, high = measured.step_seconds_quartiles
    peak, planned = max(measured.peak_memory_bytes_by_stage), max(plan.predicted.peak_memory_bytes_by_stage)
    mark = "*" if plan.planners_choice else "!" if plan.edited else " "
    return (
        f"{mark} {one.name}",
        rate(measured.samples_per_second),
        rate(plan.predicted.samples_per_second),
        _signed(one.speed_error) if one.comparable else "-",
        f"{measured.step_seconds:.3g}",
        f"{low:.3g}-{high:.3g}",
        percent(measured.data_wait_seconds / measured.step_seconds),
        unit.shown(peak),
        unit.shown(planned),
        _signed(one.worst_memory[1]) if one.comparable else "-",
    )


def _verdicts(report: Report) -> list[str]:
    found = []
    if report.chosen is not None and report.chosen_share_of_best is not None:
        own = report.chosen.result.plan.planners_choice
        who = "The planner's choice (*)" if own else "What is predicted to be fastest"
        found.append(
            f"{who}, {report.chosen.name}, reaches {percent(report.chosen_share_of_best)} of the speed of "
            f"the fastest that was measured."
        )
    if report.tau is not None:
        count = sum(one.comparable for one in report.ranked)
        found.append(
            f"Kendall's tau between predicted and measured speed: {report.tau:.2f} over {count} plans."
        )
    if report.worst_memory is not None:
        worst, stage, error = report.worst_memory
        found.append(f"Memory is off by {_signed(error)} at worst (stage {stage} of {worst.name}).")
    if any(not one.comparable for one in report.ranked):
        found.append("! ds_config.json was edited: what is predicted is the plan as it was.")
    return found


def _calibration(fit: Fit) -> list[str]:
    sentences = [f"Measured over predicted: {_factor_words(fit.factors)}.", *fit_sentences(fit)]
    if not worth_writing(fit):
        sentences.append("That is no better than without factors: no calibration is written.")
    return sentences


def _factor_words(factors: StepFactors) -> str:
    by_part = {
        "computing": factors.compute_factor,
        "recomputation": factors.recompute_factor,
        "communication": factors.communication_factor,
        "optimizer": factors.optimizer_factor,
    }
    if len(set(by_part.values())) == 1:
        words = f"{factors.compute_factor:.3g} for every part of a step"
    else:
        words = ", ".join(f"{part} {factor:.3g}" for part, factor in by_part.items())
    overhead = factors.overhead_seconds
    return words + (f"; {seconds(overhead)} besides in every step" if overhead else "")


def _state(result: Result) -> str:
    words = {**STATUS_WORDS, "pending": "not run yet"}
    return words[result.status] + (f": {result.error}" if result.error else "")


def _reasons(entries: Iterable[tuple[str, str]]) -> list[str]:
    """A bullet each; further lines of a reason below it."""
    lines = []
    for name, reason in entries:
        first, *rest = reason.splitlines() or [""]
        lines += [f"  - {name}: {first}", *(f"      {line}" for line in rest)]
    return lines


def _signed(fraction: float) -> str:
    return f"{'+' if fraction >= 0 else '-'}{percent(abs(fraction))}"
