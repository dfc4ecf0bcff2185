"""What fills each stage's GPU at its peak, against its capacity; and how the plan came to fit."""

from __future__ import annotations

from collections.abc import Sequence

from vdsgen.planner.baseline import naive_baseline
from vdsgen.planner.words import gib, percent, seconds
from vdsgen.report.memory_chart import segments
from vdsgen.report.plan.subject import PlanSubject
from vdsgen.report.section import Figure, Section, Table
from vdsgen.spec.explanations import Waterfall
from vdsgen.spec.plan import StageMemory
from vdsgen.units import GIB

COLOURS = {
    "parameters": "parameters",
    "gradients": "gradients",
    "optimizer states": "optimizer",
    "activations": "activations",
    "optimizer step": "workspace",
    "reserve": "reserve",
}
"""Segments of a stage's peak, by the palette's names."""


def capacity_section(subjects: Sequence[PlanSubject]) -> Section:
    """Bars of all stages beside plain training; the measures that took the difference away."""
    most = max(
        max(
            naive_baseline(subject.workload).memory.peak_bytes,
            *(s.memory.peak_bytes for s in subject.plan.stages),
        )
        for subject in subjects
    )
    figures = [_bars(subject, most) for subject in subjects]
    for subject in subjects:
        known = subject.plan.explanations
        if known is not None and known.waterfall.steps:
            figures.append(_measures(subject, known.waterfall, most))
    return Section(
        id="capacity",
        title="Components against capacity",
        summary=[_summary(subject) for subject in subjects],
        figures=figures,
    )


def _summary(subject: PlanSubject) -> str:
    baseline = naive_baseline(subject.workload)
    peak = max(stage.memory.peak_bytes for stage in subject.plan.stages)
    saved = percent(1 - peak / baseline.memory.peak_bytes)
    fits = "would fit as well" if baseline.fits else "would not fit"
    return (
        f"{subject.prefix}Plain data parallelism (the whole model on every GPU, nothing sharded, nothing "
        f"recomputed) needs {gib(baseline.memory.peak_bytes)} and {fits}; the plan's fullest GPU needs "
        f"{gib(peak)}, {saved} less."
    )


def _bars(subject: PlanSubject, most_bytes: int) -> Figure:
    bars: list[tuple[str, StageMemory]] = [
        ("plain training", naive_baseline(subject.workload).memory),
        *((f"stage {stage.index}", stage.memory) for stage in subject.plan.stages),
    ]
    parts = [dict(segments(memory)) for _, memory in bars]
    capacity = subject.workload.capacity_bytes
    return Figure(
        id=subject.id("capacity-bars"),
        title=f"{subject.prefix}What a GPU holds at its fullest moment",
        chart="bars",
        height_px=max(240, min(900, 110 + 30 * len(bars))),
        description=(
            "Stacked horizontal bars: plain data parallelism, then each stage of the plan; the line is the "
            f"GPU's capacity of {gib(capacity)}."
        ),
        data={
            "categories": [label for label, _ in bars],
            "series": [
                {
                    "name": name,
                    "colour": colour,
                    "values": [round(part.get(name, 0) / GIB, 3) for part in parts],
                }
                for name, colour in COLOURS.items()
                if any(part.get(name, 0) > 0 for part in parts)
            ],
            "value": {"name": "GiB on each GPU", "unit": "gib", "max": round(most_bytes / GIB * 1.05, 2)},
            "stacked": True,
            "horizontal": True,
            "limits": [{"at": round(capacity / GIB, 3), "label": f"{capacity / GIB:.4g} GiB"}],
        },
        table=Table(
            head=["", "peak", *COLOURS],
            rows=[
                [label, gib(memory.peak_bytes), *(gib(part.get(name, 0)) for name in COLOURS)]
                for (label, memory), part in zip(bars, parts, strict=True)
            ],
        ),
        note=""
        if len({stage.capacity_bytes for stage in subject.plan.stages}) == 1
        else "GPUs differ: the line is the smallest one's.",
    )


def _measures(subject: PlanSubject, waterfall: Waterfall, most_bytes: int) -> Figure:
    """From plain training to the plan, one measure after the other."""
    capacity_bytes = subject.workload.capacity_bytes
    before = waterfall.naive_bytes
    names, bases, falls, rises = ["plain training"], [0.0], [0.0], [0.0]
    totals = [before / GIB]
    for one in waterfall.steps:
        names.append(one.measure)
        bases.append(min(before, one.peak_bytes) / GIB)
        falls.append(max(0, before - one.peak_bytes) / GIB)
        rises.append(max(0, one.peak_bytes - before) / GIB)
        totals.append(0.0)
        before = one.peak_bytes
    names.append("the plan")
    for column in (bases, falls, rises):
        column.append(0.0)
    totals.append(waterfall.plan_bytes / GIB)
    step_seconds = waterfall.naive_step_seconds
    rows = [["plain training", gib(waterfall.naive_bytes), "", seconds(step_seconds)]]
    rows += [
        [
            one.measure,
            gib(one.peak_bytes),
            f"-{gib(one.saved_bytes)}" if one.saved_bytes >= 0 else f"+{gib(-one.saved_bytes)}",
            seconds(one.step_seconds),
        ]
        for one in waterfall.steps
    ]
    return Figure(
        id=subject.id("capacity-measures"),
        title=f"{subject.prefix}From plain training to the plan, measure by measure",
        chart="waterfall",
        height_px=340,
        description=(
            f"A waterfall: {gib(waterfall.naive_bytes)} for plain training; each measure takes off its part, "
            f"down to the plan's {gib(waterfall.plan_bytes)}."
        ),
        data={
            "categories": names,
            "bases": [round(value, 3) for value in bases],
            "falls": [round(value, 3) for value in falls],
            "rises": [round(value, 3) for value in rises],
            "totals": [round(value, 3) for value in totals],
            "value": {"name": "GiB on the fullest GPU", "unit": "gib", "max": most_bytes / GIB * 1.05},
            "limits": [{"at": capacity_bytes / GIB, "label": f"{capacity_bytes / GIB:.4g} GiB"}],
            "notes": [
                "",
                *(f"a step would take {seconds(one.step_seconds)}" for one in waterfall.steps),
                "",
            ],
        },
        table=Table(head=["measure", "peak", "change", "a step takes"], rows=rows),
        note="Step times are those that the measures would give, were memory no matter.",
    )
