"""Memory before and after activation checkpointing, every interval, and the square-root rule beside them."""

from __future__ import annotations

from collections.abc import Sequence
from math import isqrt
from typing import NamedTuple

from vdsgen.cost.settings import Settings
from vdsgen.cost.step_slices import without_checkpointing
from vdsgen.cost.timeline import COMPONENTS
from vdsgen.planner.words import checkpoint_words, gib, interval_words, percent, seconds
from vdsgen.report.plan.memory import component_words
from vdsgen.report.plan.subject import PlanSubject
from vdsgen.report.section import Figure, Section, Table
from vdsgen.units import GIB


class Point(NamedTuple):
    """The plan with one way of checkpointing."""

    words: str
    step_seconds: float
    peak_bytes: int
    """Of the fullest stage, with its reserve."""
    activations_bytes: int
    """The most that any stage holds of them, stashed and recomputed."""
    components: dict[str, int]
    """At that moment, with the reserve."""
    over_bytes: int
    """Of the stage that lacks most."""


def costed(subject: PlanSubject, settings: Settings, words: str) -> Point:
    """The plan's stages, recomputing as these settings say."""
    workload, stages = subject.workload, subject.plan.stages
    peaks = [workload.memory(settings, stage.index, *stage.layers).peak_bytes for stage in stages]
    fullest = stages[max(range(len(stages)), key=lambda place: peaks[place])]
    moment = workload.timeline(settings, fullest.index, *fullest.layers).peak()
    parts = moment.components()
    reserve = workload.memory(settings, fullest.index, *fullest.layers).reserve_bytes
    return Point(
        words=words,
        step_seconds=workload.times.step(settings, subject.partition).step_seconds,
        peak_bytes=max(peaks),
        activations_bytes=max(
            workload.memory(settings, s.index, *s.layers).activations_bytes for s in stages
        ),
        components={"reserve": reserve, **parts},
        over_bytes=max(
            peak - workload.capacity_of(settings, stage.index)
            for peak, stage in zip(peaks, stages, strict=True)
        ),
    )


class Sweep(NamedTuple):
    """Every way that is shown of one plan."""

    before: Point
    planned: Point
    by_interval: tuple[Point, ...]
    """Interval 1, 2, ... on all stages."""
    square_root: int
    """Blocks a segment that the rule names for a stage with most blocks."""
    blocks: int
    """Of that stage."""


def sweep(subject: PlanSubject) -> Sweep:
    """Uniform intervals on the plan's own stages; nothing plain, nothing selective, nothing packed."""
    before = subject.workload.blocks_before
    blocks = max(before[stop] - before[start] for start, stop in (s.layers for s in subject.plan.stages))
    plain = without_checkpointing(subject.settings)
    points = [
        costed(subject, plain.with_interval(interval), interval_words(interval))
        for interval in range(1, blocks + 1)
    ]
    return Sweep(
        before=costed(subject, plain, "no checkpointing"),
        planned=costed(subject, subject.settings, checkpoint_words(subject.settings)),
        by_interval=tuple(points),
        square_root=max(1, isqrt(blocks) + (blocks - isqrt(blocks) ** 2 > isqrt(blocks))),
        blocks=blocks,
    )


def checkpointing_section(subjects: Sequence[PlanSubject]) -> Section:
    """For each plan: bars before and after, and curves of memory and time over the interval."""
    sweeps = [sweep(subject) for subject in subjects]
    every = [point for one in sweeps for point in (one.before, one.planned, *one.by_interval)]
    most = max(point.peak_bytes for point in every)
    slowest = max(point.step_seconds for point in every)
    figures: list[Figure] = []
    for subject, one in zip(subjects, sweeps, strict=True):
        figures += [_bars(subject, one, most), _curves(subject, one, most), _times(subject, one, slowest)]
    return Section(
        id="checkpointing",
        title="Activation checkpointing",
        summary=[_summary(subject, one) for subject, one in zip(subjects, sweeps, strict=True)],
        figures=figures,
    )


def _summary(subject: PlanSubject, found: Sweep) -> str:
    before, root = found.before, found.by_interval[found.square_root - 1]
    return (
        f"{subject.prefix}The square-root rule for a stage of {found.blocks} blocks names segments of "
        f"{found.square_root}: activations go from {gib(before.activations_bytes)} to "
        f"{gib(root.activations_bytes)} ({_change(root.activations_bytes, before.activations_bytes)}), the "
        f"step from {seconds(before.step_seconds)} to {seconds(root.step_seconds)} "
        f"({_change(root.step_seconds, before.step_seconds)}). The plan has {found.planned.words}: "
        f"activations {_change(found.planned.activations_bytes, before.activations_bytes)}, the step "
        f"{_change(found.planned.step_seconds, before.step_seconds)}. No checkpointing at all "
        + (f"lacks {gib(before.over_bytes)}." if before.over_bytes > 0 else "would fit.")
    )


def _change(after: float, before: float) -> str:
    if not before:
        return "no change"
    fraction = after / before - 1
    return "no change" if abs(fraction) < 5e-4 else f"{'+' if fraction > 0 else '-'}{percent(abs(fraction))}"


def _shown(found: Sweep) -> list[tuple[str, Point]]:
    """What bars are drawn of."""
    bars = [("none", found.before), ("every block", found.by_interval[0])]
    if found.square_root > 1:
        bars.append((f"every {found.square_root} (√n)", found.by_interval[found.square_root - 1]))
    return [*bars, ("as planned", found.planned)]


def _bars(subject: PlanSubject, found: Sweep, most_bytes: int) -> Figure:
    bars = _shown(found)
    names = [name for name in ("reserve", *COMPONENTS) if any(point.components[name] for _, point in bars)]
    capacity = subject.workload.capacity_bytes
    return Figure(
        id=subject.id("checkpointing-bars"),
        title=f"{subject.prefix}The fullest GPU at its peak, before and after",
        chart="bars",
        wide=True,
        height_px=300,
        description=(
            f"Stacked bars: without checkpointing {gib(found.before.peak_bytes)}, as planned "
            f"{gib(found.planned.peak_bytes)}, of {gib(capacity)}."
        ),
        data={
            "categories": [label for label, _ in bars],
            "series": [
                {
                    "name": component_words(name),
                    "colour": name,
                    "values": [round(point.components[name] / GIB, 3) for _, point in bars],
                }
                for name in names
            ],
            "value": {"name": "GiB", "unit": "gib", "max": round(most_bytes / GIB * 1.06, 2)},
            "stacked": True,
            "horizontal": True,
            "limits": [{"at": round(capacity / GIB, 3), "label": f"{capacity / GIB:.4g} GiB"}],
            "notes": [f"{point.words}; a step takes {seconds(point.step_seconds)}" for _, point in bars],
        },
        table=Table(
            head=["checkpointing", "peak", *(component_words(name) for name in names), "a step takes"],
            rows=[
                [
                    label,
                    gib(point.peak_bytes),
                    *(gib(point.components[name]) for name in names),
                    seconds(point.step_seconds),
                ]
                for label, point in bars
            ],
        ),
    )


def _marks(found: Sweep) -> list[dict[str, object]]:
    return [{"at": found.square_root, "label": f"√n: {found.square_root}"}]


def _curves(subject: PlanSubject, found: Sweep, most_bytes: int) -> Figure:
    capacity = subject.workload.capacity_bytes
    numbered = list(enumerate(found.by_interval, start=1))
    last = max(2, len(numbered))
    return Figure(
        id=subject.id("checkpointing-memory"),
        title=f"{subject.prefix}Peak memory by blocks a segment",
        chart="lines",
        height_px=300,
        description="Peak memory of the fullest GPU over the checkpoint interval, the plan's, the capacity.",
        data={
            "x": {"name": "blocks a segment", "min": 1, "max": last, "minInterval": 1},
            "y": {"name": "GiB", "unit": "gib", "min": 0, "max": round(most_bytes / GIB * 1.08, 2)},
            "series": [
                {
                    "name": "peak",
                    "points": [[number, round(point.peak_bytes / GIB, 3)] for number, point in numbered],
                },
                {
                    "name": "activations",
                    "colour": "activations",
                    "points": [
                        [number, round(point.activations_bytes / GIB, 3)] for number, point in numbered
                    ],
                },
                {
                    "name": "peak as planned",
                    "colour": "workspace",
                    "points": [[number, round(found.planned.peak_bytes / GIB, 3)] for number in (1, last)],
                },
                {
                    "name": "peak without checkpointing",
                    "colour": "reserve",
                    "points": [[number, round(found.before.peak_bytes / GIB, 3)] for number in (1, last)],
                },
            ],
            "limits": [{"at": round(capacity / GIB, 3), "label": f"{capacity / GIB:.4g} GiB"}],
            "marks": _marks(found),
        },
        table=_table(found),
    )


def _times(subject: PlanSubject, found: Sweep, slowest: float) -> Figure:
    numbered = list(enumerate(found.by_interval, start=1))
    last = max(2, len(numbered))
    return Figure(
        id=subject.id("checkpointing-time"),
        title=f"{subject.prefix}Step time by blocks a segment",
        chart="lines",
        height_px=300,
        description="Seconds of a step over the checkpoint interval, with the plan's and those without it.",
        data={
            "x": {"name": "blocks a segment", "min": 1, "max": last, "minInterval": 1},
            "y": {"name": "seconds a step", "unit": "seconds", "min": 0, "max": slowest * 1.1},
            "series": [
                {"name": "step", "points": [[number, point.step_seconds] for number, point in numbered]},
                {
                    "name": "as planned",
                    "colour": "workspace",
                    "points": [[number, found.planned.step_seconds] for number in (1, last)],
                },
                {
                    "name": "without checkpointing",
                    "colour": "reserve",
                    "points": [[number, found.before.step_seconds] for number in (1, last)],
                },
            ],
            "marks": _marks(found),
        },
        table=_table(found),
        note="Every interval recomputes each block once, whatever its length: time hardly depends on it. The "
        "plan may recompute less: part of its layers, or only what is cheap.",
    )


def _table(found: Sweep) -> Table:
    rows = [("none", found.before)]
    rows += [(str(number), point) for number, point in enumerate(found.by_interval, start=1)]
    rows.append(("as planned", found.planned))
    return Table(
        head=["blocks a segment", "peak", "activations", "a step takes", "fits"],
        rows=[
            [
                label + (" (√n)" if label == str(found.square_root) else ""),
                gib(point.peak_bytes),
                gib(point.activations_bytes),
                seconds(point.step_seconds),
                "yes" if point.over_bytes <= 0 else f"lacks {gib(point.over_bytes)}",
            ]
            for label, point in rows
        ],
    )
