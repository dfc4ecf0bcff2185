"""The plan in fp32, fp16 and bf16: memory and time of the same stages, as the planner costs them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from vdsgen.cost.timeline import COMPONENTS
from vdsgen.planner.facts import facts
from vdsgen.planner.numerics import accumulation_dtype
from vdsgen.planner.words import gib, percent, seconds
from vdsgen.report.plan.checkpointing import Point, costed
from vdsgen.report.plan.memory import component_words
from vdsgen.report.plan.subject import PlanSubject
from vdsgen.report.section import Figure, Section, Table
from vdsgen.rules.registry import forbidding_rules
from vdsgen.rules.rule import violations
from vdsgen.spec.dtypes import Dtype
from vdsgen.units import GIB

DTYPES: tuple[Dtype, ...] = ("fp32", "fp16", "bf16")


class Precise(NamedTuple):
    """The plan in one format."""

    dtype: Dtype
    accumulation: Dtype
    point: Point
    refused: str
    """Why the planner would not take it; empty where it would."""


def precisions(subject: PlanSubject) -> list[Precise]:
    """Those that the pool's GPU computes in."""
    workload, settings = subject.workload, subject.settings
    found = []
    for dtype in DTYPES:
        if not workload.has_rate(dtype):
            continue
        sums = (
            settings.gradient_accumulation_dtype
            if dtype == settings.dtype
            else accumulation_dtype(workload.experiment.training, dtype, settings.zero_stage)
        )
        other = settings._replace(dtype=dtype, gradient_accumulation_dtype=sums)
        broken = violations(facts(workload, other), forbidding_rules())
        words = dtype if sums == dtype else f"{dtype}, gradients summed in {sums}"
        found.append(Precise(dtype, sums, costed(subject, other, words), broken[0].message if broken else ""))
    return found


def precision_section(subjects: Sequence[PlanSubject]) -> Section | None:
    """None where the GPUs compute in one format only."""
    every = [precisions(subject) for subject in subjects]
    if all(len(one) < 2 for one in every):
        return None
    most = max(one.point.peak_bytes for found in every for one in found)
    slowest = max(one.point.step_seconds for found in every for one in found)
    figures = []
    for subject, found in zip(subjects, every, strict=True):
        figures += [_memory(subject, found, most), _time(subject, found, slowest)]
    return Section(
        id="precision",
        title="Precision",
        summary=[
            *(_summary(subject, found) for subject, found in zip(subjects, every, strict=True)),
            "Memory and speed only: what a format does to the loss is seen in a run, not in a plan.",
        ],
        figures=figures,
    )


def _summary(subject: PlanSubject, found: Sequence[Precise]) -> str:
    planned = next(one for one in found if one.dtype == subject.settings.dtype)
    told = []
    for one in found:
        if one is planned:
            continue
        memory = one.point.peak_bytes / planned.point.peak_bytes - 1
        time = one.point.step_seconds / planned.point.step_seconds - 1
        fits = "does not fit" if one.point.over_bytes > 0 else "fits"
        told.append(f"{one.dtype} needs {_signed(memory)} memory and {_signed(time)} time ({fits})")
    return (
        f"{subject.prefix}The plan trains in {planned.point.words}. With the same stages and checkpointing, "
        f"{'; '.join(told)}."
    )


def _signed(fraction: float) -> str:
    return (
        "as much"
        if abs(fraction) < 5e-4
        else f"{percent(abs(fraction))} {'more' if fraction > 0 else 'less'}"
    )


def _labels(subject: PlanSubject, found: Sequence[Precise]) -> list[str]:
    return [f"{one.dtype} (planned)" if one.dtype == subject.settings.dtype else one.dtype for one in found]


def _table(subject: PlanSubject, found: Sequence[Precise]) -> Table:
    return Table(
        head=["format", "gradients summed in", "peak", "a step takes", "fits"],
        rows=[
            [
                label,
                one.accumulation,
                gib(one.point.peak_bytes),
                seconds(one.point.step_seconds),
                one.refused or ("yes" if one.point.over_bytes <= 0 else f"lacks {gib(one.point.over_bytes)}"),
            ]
            for label, one in zip(_labels(subject, found), found, strict=True)
        ],
    )


def _memory(subject: PlanSubject, found: Sequence[Precise], most_bytes: int) -> Figure:
    names = [n for n in ("reserve", *COMPONENTS) if any(one.point.components[n] for one in found)]
    capacity = subject.workload.capacity_bytes
    return Figure(
        id=subject.id("precision-memory"),
        title=f"{subject.prefix}The fullest GPU at its peak, by format",
        chart="bars",
        height_px=300,
        description=f"Stacked bars of {', '.join(one.dtype for one in found)} against {gib(capacity)}.",
        data={
            "categories": _labels(subject, found),
            "series": [
                {
                    "name": component_words(name),
                    "colour": name,
                    "values": [round(one.point.components[name] / GIB, 3) for one in found],
                }
                for name in names
            ],
            "value": {"name": "GiB", "unit": "gib", "max": round(most_bytes / GIB * 1.06, 2)},
            "stacked": True,
            "horizontal": True,
            "limits": [{"at": round(capacity / GIB, 3), "label": f"{capacity / GIB:.4g} GiB"}],
            "notes": [one.point.words for one in found],
        },
        table=_table(subject, found),
    )


def _time(subject: PlanSubject, found: Sequence[Precise], slowest: float) -> Figure:
    return Figure(
        id=subject.id("precision-time"),
        title=f"{subject.prefix}Step time by format",
        chart="bars",
        height_px=300,
        description="; ".join(f"{one.dtype}: {seconds(one.point.step_seconds)}" for one in found),
        data={
            "categories": _labels(subject, found),
            "series": [{"name": "a step", "values": [one.point.step_seconds for one in found]}],
            "value": {"name": "seconds a step", "unit": "seconds", "max": slowest * 1.06},
            "horizontal": True,
        },
        table=_table(subject, found),
    )
