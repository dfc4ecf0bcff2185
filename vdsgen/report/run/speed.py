"""How fast a run is: its steps beside the predicted one, what they wait for, and where stages' seconds go."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

from vdsgen.planner.words import percent, rate, seconds
from vdsgen.report.run.curves import line_figure, raw_and_smoothed, restart_marks, rounded_up, series
from vdsgen.report.run.subject import RunSubject
from vdsgen.report.section import Figure, Section, Table
from vdsgen.runs.notices import data_wait_fraction
from vdsgen.runs.smooth import half_life_of, smoothed
from vdsgen.runs.stage_times import stage_times
from vdsgen.spec.run import ACTIVITIES

BINS = 24
"""Of the distribution of steps' seconds."""
BEYOND = 0.99
"""Quantile past which the longest steps are one bin."""
COLOURS = {
    "forward": "forward",
    "backward": "backward",
    "bubble": "idle_edge",
    "transfer": "transfer",
    "reduce": "exchange",
    "gather": "recompute",
    "optimizer": "workspace",
    "data": "temporaries",
    "other": "other",
}
"""Names of vdsgen.report.palette."""


def speed_section(subjects: Sequence[RunSubject]) -> Section:
    figures = [_step_time(subjects), _distribution(subjects), _data_wait(subjects), _throughput(subjects)]
    longest = max(map(_longest_stage, subjects))
    figures += [_stages(subject, longest) for subject in subjects]
    return Section(
        id="speed",
        title="Speed",
        summary=[_summary(subject) for subject in subjects],
        figures=[figure for figure in figures if figure is not None],
    )


def typical_seconds(subject: RunSubject) -> float | None:
    """The median step."""
    timed = subject.timed
    return statistics.median(step.step_seconds for step in timed) if timed else None


def flops_utilization(subject: RunSubject) -> float | None:
    """Measured: the planned work of the model in the measured time. None on processors, whose peak is no
    figure of the catalogue's."""
    typical, data = typical_seconds(subject), subject.data
    on_processors = data.record is None or data.record.on_processors
    if data.plan is None or typical is None or not typical or on_processors:
        return None
    return data.plan.predicted.model_flops_utilization * data.plan.predicted.step_seconds / typical


def _summary(subject: RunSubject) -> str:
    typical, predicted = typical_seconds(subject), subject.predicted_step_seconds
    if typical is None:
        return f"{subject.prefix}No step has been made yet."
    line = f"{subject.prefix}The median step takes {seconds(typical)}"
    if predicted:
        line += f", {typical / predicted:.2f} times the predicted {seconds(predicted)}"
    plan = subject.data.plan
    if plan is not None and typical:
        line += f": {rate(plan.batch.global_batch_size / typical)} samples a second"
    line += f". {percent(data_wait_fraction(subject.timed))} of the time goes into waiting for clips"
    utilization = flops_utilization(subject)
    if utilization is not None and plan is not None:
        line += (
            f"; {percent(utilization)} of the GPUs' peak is used for the model's own work, where "
            f"{percent(plan.predicted.model_flops_utilization)} were predicted"
        )
    return f"{line}."


def _step_time(subjects: Sequence[RunSubject]) -> Figure:
    curves = [
        one
        for subject in subjects
        for one in raw_and_smoothed(subject, "step", lambda step: step.step_seconds, several=len(subjects))
    ]
    limits = [
        {"at": predicted, "label": f"{subject.prefix}predicted {seconds(predicted)}"}
        for subject in subjects
        if (predicted := subject.predicted_step_seconds)
    ]
    return line_figure(
        "step-time",
        "Seconds a step",
        curves,
        "seconds",
        "How long every step took, its moving average, and the time that was predicted.",
        name="step",
        marks=restart_marks(subjects),
        limits=limits,
        from_zero=True,
        note="The first steps allocate memory and fill caches; medians leave them out.",
    )


def _distribution(subjects: Sequence[RunSubject]) -> Figure | None:
    taken = {subject.letter: [step.step_seconds for step in subject.timed] for subject in subjects}
    every = sorted(second for found in taken.values() for second in found)
    if len(every) < 2:
        return None
    low, high = every[0], every[min(len(every) - 1, math.ceil(BEYOND * len(every)))]
    width = (high - low) / BINS if high > low else max(high, 1e-9) / BINS
    edges = [low + place * width for place in range(BINS + 1)]
    names = [f"{seconds(left)} to {seconds(right)}" for left, right in pairwise(edges)]
    names[-1] = f"{seconds(edges[-2])} and more"
    counted: list[dict[str, Any]] = []
    for subject in subjects:
        counts = [0] * BINS
        for second in taken[subject.letter]:
            counts[min(BINS - 1, int((second - low) / width))] += 1
        counted.append({"name": f"{subject.prefix}steps", "values": counts, "colour": subject.number})
    predicted = [
        f"{subject.prefix}predicted: {seconds(value)}"
        for subject in subjects
        if (value := subject.predicted_step_seconds)
    ]
    spread = []
    for subject in subjects:
        found = sorted(taken[subject.letter])
        if found:
            at = [found[min(len(found) - 1, int(share * len(found)))] for share in (0.05, 0.5, 0.95)]
            spread.append(f"{subject.prefix}5 %, 50 % and 95 %: {', '.join(map(seconds, at))}")
    return Figure(
        id="step-time-distribution",
        title="Steps by their seconds",
        chart="bars",
        data={
            "categories": names,
            "category": "seconds a step",
            "series": counted,
            "value": {"name": "steps", "unit": "number"},
        },
        table=Table(
            head=["seconds", *(one["name"] for one in counted)],
            rows=[
                [name, *(str(one["values"][place]) for one in counted)] for place, name in enumerate(names)
            ],
        ),
        description="How many steps took how long.",
        note="; ".join([*spread, *predicted]),
    )


def _data_wait(subjects: Sequence[RunSubject]) -> Figure:
    curves = []
    for subject in subjects:
        steps = subject.data.steps
        shares = [step.data_seconds / step.step_seconds if step.step_seconds else None for step in steps]
        smooth = smoothed(shares, half_life_of(len(shares)))
        points = [(step.step, share) for step, share in zip(steps, smooth, strict=True)]
        curves.append(
            series(
                f"{subject.prefix}waiting for clips", [*points], colour=subject.number, dash=subject.number
            )
        )
    return line_figure(
        "data-wait",
        "Waiting for clips",
        curves,
        "percent",
        "The share of every step in which the rank that waited longest waited for clips, smoothed.",
        name="share of a step",
        marks=restart_marks(subjects),
    )


def _throughput(subjects: Sequence[RunSubject]) -> Figure:
    curves = [
        one
        for subject in subjects
        for one in raw_and_smoothed(
            subject, "samples/s", lambda step: step.samples_per_second, several=len(subjects)
        )
    ]
    limits = [
        {
            "at": plan.predicted.samples_per_second,
            "label": f"{subject.prefix}predicted {rate(plan.predicted.samples_per_second)}",
        }
        for subject in subjects
        if (plan := subject.data.plan) is not None
    ]
    return line_figure(
        "throughput",
        "Samples a second",
        curves,
        "number",
        "Samples that all ranks together trained on a second, and what was predicted.",
        name="samples/s",
        marks=restart_marks(subjects),
        limits=limits,
        from_zero=True,
    )


def _longest_stage(subject: RunSubject) -> float:
    """Of what is drawn of it."""
    measured = [sum(stage.seconds.values()) for stage in stage_times(subject.data)]
    return max([*measured, subject.predicted_step_seconds or 0.0])


def _stages(subject: RunSubject, longest: float) -> Figure | None:
    """Each stage's seconds, measured; beside it the plan's forward and backward. The axis ends after
    `longest`."""
    stages = stage_times(subject.data)
    if not stages:
        return None
    categories, rows = [], []
    values: dict[str, list[float]] = {name: [] for name in ACTIVITIES}
    planned = all(stage.planned_forward_seconds is not None for stage in stages)
    for stage in stages:
        categories.append(f"stage {stage.stage}" + (", measured" if planned else ""))
        for name in ACTIVITIES:
            values[name].append(round(stage.seconds[name], 7))
        rows.append([categories[-1], *(seconds(stage.seconds[name]) for name in ACTIVITIES)])
        if planned:
            forward, backward = stage.planned_forward_seconds or 0.0, stage.planned_backward_seconds or 0.0
            known = {"forward": forward, "backward": backward}
            rest = max(0.0, (subject.predicted_step_seconds or 0.0) - forward - backward)
            known["other"] = rest
            categories.append(f"stage {stage.stage}, predicted")
            for name in ACTIVITIES:
                values[name].append(round(known.get(name, 0.0), 7))
            rows.append([categories[-1], *(seconds(known[n]) if n in known else "" for n in ACTIVITIES)])
    return Figure(
        id=subject.id("stage-seconds"),
        title=f"{subject.prefix}Where a stage's step goes",
        chart="bars",
        data={
            "categories": categories,
            "series": [
                {"name": name, "values": values[name], "colour": COLOURS[name]}
                for name in ACTIVITIES
                if any(values[name])
            ],
            "value": {"name": "a step", "unit": "seconds", "max": rounded_up(longest)},
            "stacked": True,
            "horizontal": True,
        },
        table=Table(head=["stage", *ACTIVITIES], rows=rows),
        description="The seconds of a step of each pipeline stage by what they go to: the median of the "
        "last steps, and the plan's forward and backward.",
        note="Predicted: other is all but forward and backward. Bubble: waiting for another stage."
        if planned
        else "Bubble: waiting for another stage.",
        wide=True,
        height_px=max(220, 90 + 34 * len(categories)),
    )
