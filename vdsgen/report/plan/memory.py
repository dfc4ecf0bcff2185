"""Memory over the time of one step: by component for chosen stages, and of all stages at a glance."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from vdsgen.cost.step_slices import StepSlices
from vdsgen.cost.timeline import COMPONENTS
from vdsgen.planner.words import COMPONENT_WORDS, gib, moment_words, percent, seconds
from vdsgen.report.plan.held import Held, held_by_stage, reserve_bytes
from vdsgen.report.plan.subject import PlanSubject
from vdsgen.report.section import Figure, Section, Table
from vdsgen.units import GIB

MOST_STAGES = 8
"""Shown by component; of more, these are chosen: the first, the last, the fullest, and some between."""
MIB = 1024**2
BINS = 160
"""Columns of the picture of all stages."""


def component_words(name: str) -> str:
    return COMPONENT_WORDS.get(name, name.replace("_", " "))


def memory_section(subjects: Sequence[PlanSubject]) -> Section:
    """One figure a plan, on the same axes; with several stages one of all of them besides."""
    longest = max(subject.step.end_seconds for subject in subjects)
    fullest = max(
        max(stage.capacity_bytes, stage.memory.peak_bytes)
        for subject in subjects
        for stage in subject.plan.stages
    )
    figures = [_by_component(subject, longest, fullest) for subject in subjects]
    figures += [_all_stages(subject, longest) for subject in subjects if len(subject.plan.stages) > 2]
    return Section(
        id="memory",
        title="Memory over one step",
        summary=[line for subject in subjects for line in _summary(subject)],
        figures=figures,
    )


def _summary(subject: PlanSubject) -> list[str]:
    stages = subject.plan.stages
    fullest = max(stages, key=lambda stage: stage.memory.peak_bytes / stage.capacity_bytes)
    where = f"The fullest, stage {fullest.index}," if len(stages) > 1 else "Each GPU"
    share = fullest.memory.peak_bytes / fullest.capacity_bytes
    line = (
        f"{subject.prefix}{where} needs "
        f"{gib(fullest.memory.peak_bytes)} of {gib(fullest.capacity_bytes)} ({percent(share)})"
    )
    if fullest.peak is not None:
        line += f". It peaks {moment_words(fullest.peak)}"
    return [f"{line}."]


def shown_stages(subject: PlanSubject) -> list[int]:
    """Those whose components are shown."""
    count = len(subject.plan.stages)
    if count <= MOST_STAGES:
        return list(range(count))
    fullest = max(subject.plan.stages, key=lambda stage: stage.memory.peak_bytes / stage.capacity_bytes).index
    chosen = {0, count - 1, fullest}
    for place in range(MOST_STAGES):
        if len(chosen) < MOST_STAGES:
            chosen.add(round(place * (count - 1) / (MOST_STAGES - 1)))
    return sorted(chosen)


def _by_component(subject: PlanSubject, longest: float, fullest_bytes: int) -> Figure:
    stages = shown_stages(subject)
    held = {stage: held_by_stage(subject, stage, len(stages)) for stage in stages}
    present = [
        name
        for name in COMPONENTS
        if any(one.moment.components()[name] for points in held.values() for one in points)
    ]
    rows = [_peak_row(subject, stage, max(held[stage], key=_total), present) for stage in stages]
    fullest = max(stages, key=lambda stage: subject.plan.stages[stage].memory.peak_bytes)
    several = len(subject.plan.stages) > 1
    return Figure(
        id=subject.id("memory-step"),
        title=f"{subject.prefix}What a GPU holds through one step, by component",
        chart="memoryStep",
        wide=True,
        height_px=400,
        description=(
            "A stacked area chart: time on the horizontal axis, memory of a GPU on the vertical one, and the "
            f"GPU's capacity as a line. The peak is {rows[stages.index(fullest)][1]}, "
            f"{rows[stages.index(fullest)][-1]}."
        ),
        data={
            "choices": [f"stage {stage}" for stage in stages] if several else [],
            "choice": stages.index(fullest),
            "components": [[name, component_words(name)] for name in ("reserve", *present)],
            "stages": [_stage_data(subject, stage, held[stage], present) for stage in stages],
            "x_max": longest,
            "y_max": fullest_bytes / GIB * 1.08,
        },
        table=Table(
            head=["stage", "peak", *[component_words(name) for name in ("reserve", *present)], "when"],
            rows=rows,
            caption="Each stage at its fullest moment",
        ),
        note=_note(subject, stages),
    )


def _total(held: Held) -> int:
    return held.moment.total_bytes


def _stage_data(
    subject: PlanSubject, stage: int, held: Sequence[Held], present: Sequence[str]
) -> dict[str, Any]:
    """Times in seconds, what is held in MiB; what happens, as an index into `names`."""
    names: list[str] = []
    what: list[int] = []
    for one in held:
        words = happening_words(one)
        if words not in names:
            names.append(words)
        what.append(names.index(words))
    columns = [[one.moment.components()[name] for one in held] for name in present]
    columns.insert(0, [reserve_bytes(subject, stage)] * len(held))
    return {
        "capacity": round(subject.plan.stages[stage].capacity_bytes / GIB, 4),
        "times": [round(one.at_seconds, 5) for one in held],
        "end": round(subject.step.end_seconds, 5),
        "values": [_column(column) for column in columns],
        "names": names,
        "what": what,
    }


def _column(values: Sequence[int]) -> list[int] | int:
    """In MiB; one number where nothing changes."""
    short = [round(value / MIB) for value in values]
    return short[0] if len(set(short)) == 1 else short


def happening_words(held: Held) -> str:
    """What runs: `forward of micro-batch 3, layer 7`."""
    moment = held.moment
    verb = {"ForwardPass": "forward", "BackwardPass": "backward"}.get(moment.instruction, moment.instruction)
    if moment.recomputing:
        verb = "recomputation"
    micro_batch = "" if moment.micro_batch is None else f" of micro-batch {moment.micro_batch}"
    layer = "" if moment.layer is None else f", layer {moment.layer}"
    return f"{verb}{micro_batch}{layer}"


def _peak_row(subject: PlanSubject, stage: int, peak: Held, present: Sequence[str]) -> list[str]:
    reserve = reserve_bytes(subject, stage)
    parts = peak.moment.components()
    return [
        f"stage {stage}",
        gib(peak.moment.total_bytes + reserve),
        gib(reserve),
        *[gib(parts[name]) for name in present],
        f"{seconds(peak.at_seconds)}: {happening_words(peak)}",
    ]


def _note(subject: PlanSubject, stages: Sequence[int]) -> str:
    parts = []
    if len(stages) < len(subject.plan.stages):
        parts.append(f"{len(stages)} of {len(subject.plan.stages)} stages; the picture of all is below.")
    if subject.step.left_out:
        parts.append(excerpt_words(subject.step, subject.plan.predicted.step_seconds))
    parts.append("Within an instruction, layers are spread evenly over its time.")
    return " ".join(parts)


def excerpt_words(step: StepSlices, step_seconds: float) -> str:
    """What is left out of a long step, which takes `step_seconds` as a whole."""
    total = step.micro_batches + step.left_out
    return (
        f"An excerpt: the pipeline fills, runs steadily and drains with {step.micro_batches} of the step's "
        f"{total} micro-batches; the other {step.left_out} repeat its steady part. The whole step takes "
        f"{seconds(step_seconds)}."
    )


def _all_stages(subject: PlanSubject, longest: float) -> Figure:
    """Stage by time, how full: the fullest moment in each column."""
    count = len(subject.plan.stages)
    cells: list[list[int]] = []
    rows: list[list[str]] = []
    width, end = longest / BINS, subject.step.end_seconds
    for stage in range(count):
        capacity = subject.plan.stages[stage].capacity_bytes
        held = held_by_stage(subject, stage, count)
        columns = _binned(held, width, end)
        shares = [
            round(1000 * (value + reserve_bytes(subject, stage)) / capacity) if value is not None else -1
            for value in columns
        ]
        cells.append(shares)
        known = [share for share in shares if share >= 0]
        rows.append([f"stage {stage}", percent(min(known) / 1000), percent(max(known) / 1000)])
    return Figure(
        id=subject.id("memory-stages"),
        title=f"{subject.prefix}How full every stage is through one step",
        chart="memoryStages",
        wide=True,
        height_px=max(180, min(640, 90 + 24 * count)),
        description=(
            "A heat map: one row a pipeline stage, time to the right; the colour is the share of the GPU's "
            "capacity that is in use, darker where fuller."
        ),
        data={"cells": cells, "width_seconds": width, "bins": BINS},
        table=Table(head=["stage", "least", "most"], rows=rows, caption="Share of a GPU's capacity"),
    )


def _binned(held: Sequence[Held], width: float, end: float) -> list[int | None]:
    """The largest total in each column; None after the step's end."""
    found: list[int | None] = []
    place = 0
    now = held[0].moment.total_bytes
    for column in range(BINS):
        begin, stop = column * width, (column + 1) * width
        if begin >= end:
            found.append(None)
            continue
        most = now
        while place < len(held) and held[place].at_seconds < stop:
            now = held[place].moment.total_bytes
            most = max(most, now)
            place += 1
        found.append(most)
    return found
