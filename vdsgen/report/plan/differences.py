"""Two plans beside each other, figure by figure."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

from vdsgen.planner.compare import PARTS
from vdsgen.planner.words import changed_words, gib, percent, rate, seconds, settings_words
from vdsgen.report.plan.subject import PlanSubject
from vdsgen.report.section import Figure, Section, Table

LEAST_SECONDS = 1e-9
"""Less is rounding."""


def differences_section(subjects: Sequence[PlanSubject]) -> Section | None:
    """None for a single plan."""
    if len(subjects) < 2:
        return None
    first, second = subjects
    return Section(
        id="differences",
        title="A and B in figures",
        summary=[_summary(first, second)],
        figures=[_bars(first, second)],
        tables=[_figures(first, second)],
    )


def _summary(first: PlanSubject, second: PlanSubject) -> str:
    if first.plan == second.plan:
        return "A and B are the same plan."
    before, after = first.plan.predicted.samples_per_second, second.plan.predicted.samples_per_second
    change = after / before - 1
    told = "as fast as"
    if abs(change) >= 5e-4:
        told = f"{percent(abs(change))} {'faster' if change > 0 else 'slower'} than"
    return f"B is {told} A, in samples a second. {_changes(first, second)}"


def _changes(first: PlanSubject, second: PlanSubject) -> str:
    if first.settings == second.settings:
        return "Both have the same settings."
    changed = changed_words(first.settings, second.settings)
    return f"A has {settings_words(first.settings)}; beside it B has {changed}."


def _part(subject: PlanSubject, key: str) -> float:
    split = subject.plan.predicted.split
    return 0.0 if split is None else float(getattr(split, key))


def _peak(subject: PlanSubject) -> float:
    return max(stage.memory.peak_bytes for stage in subject.plan.stages)


def _figures(first: PlanSubject, second: PlanSubject) -> Table:
    figures: list[tuple[str, Callable[[PlanSubject], float], Callable[[float], str]]] = [
        ("a step takes", lambda one: one.plan.predicted.step_seconds, seconds),
        ("samples a second", lambda one: one.plan.predicted.samples_per_second, rate),
        ("samples a step", lambda one: one.plan.batch.global_batch_size, lambda value: f"{value:,.0f}"),
        ("peak of the fullest GPU", _peak, gib),
        ("utilisation", lambda one: one.plan.predicted.model_flops_utilization, percent),
        ("bubble", lambda one: one.plan.predicted.bubble_fraction, percent),
        ("GPUs", lambda one: one.plan.parallel.world_size, lambda value: f"{value:.0f}"),
        ("pipeline stages", lambda one: len(one.plan.stages), lambda value: f"{value:.0f}"),
    ]
    for key, words in PARTS.items():
        if any(_part(subject, key) > LEAST_SECONDS for subject in (first, second)):
            figures.append((f"of a step: {words}", partial(_part, key=key), seconds))
    rows = []
    for name, value, written in figures:
        before, after = value(first), value(second)
        change = ""
        if before and before != after:
            change = f"{'+' if after > before else '-'}{percent(abs(after / before - 1))}"
        rows.append([name, written(before), written(after), change or ("" if before == after else "new")])
    return Table(head=["", f"A: {first.name}", f"B: {second.name}", "B over A"], rows=rows)


def _bars(first: PlanSubject, second: PlanSubject) -> Figure:
    """Both steps, each of one bar of its causes."""
    both = (first, second)
    keys = [key for key in PARTS if any(_part(subject, key) > LEAST_SECONDS for subject in both)]
    values = {key: [_part(subject, key) for subject in both] for key in keys}
    return Figure(
        id="differences-bars",
        title="One step of each, by cause",
        chart="bars",
        wide=True,
        height_px=250,
        description="Two stacked bars: the causes of A's and of B's step.",
        data={
            "categories": ["A", "B"],
            "series": [
                {"name": PARTS[key], "colour": place, "values": values[key]} for place, key in enumerate(keys)
            ],
            "value": {"name": "seconds", "unit": "seconds"},
            "stacked": True,
            "horizontal": True,
        },
        table=Table(
            head=["cause", "A", "B"],
            rows=[[PARTS[key], *(seconds(value) for value in values[key])] for key in keys],
        ),
    )
