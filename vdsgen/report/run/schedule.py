"""The schedule as a run has run it, beside the simulated one, on the same axis of time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from vdsgen.planner.words import percent, seconds
from vdsgen.report.plan.gantt import KINDS, schedule_data
from vdsgen.report.plan.memory import excerpt_words
from vdsgen.report.run.measured import DIGITS, began
from vdsgen.report.run.subject import RunSubject
from vdsgen.report.section import Figure, Section, Table
from vdsgen.runs.traces import ScheduleCapture, TracedStep

NAMES_PX = 120
"""Room for rows' names, the same on both sides: their axes lie under each other."""
MOST_ROWS = 16
"""Ranks that are shown one by one."""
OF_ACTIVITIES = {
    "forward": "ForwardPass",
    "backward": "BackwardPass",
    "transfer": "SendActivation",
    "reduce": "ReduceGrads",
    "gather": "GatherParameters",
    "optimizer": "OptimizerStep",
    "data": "DataWait",
}
"""As which slice an activity is drawn; what is not here is waiting."""


class Stretch(NamedTuple):
    """Drawn on a row; seconds since the step began on the first rank."""

    name: str
    micro_batch: int | None
    begin: float
    end: float


def schedule_section(subjects: Sequence[RunSubject]) -> Section | None:
    """Of each run that traced something, a step as measured and as simulated; None where none did."""
    shown = [(subject, step) for subject in subjects if (step := typical_step(subject)) is not None]
    if not shown:
        return None
    longest = max(_longest(subject, step) for subject, step in shown)
    figures = [figure for subject, step in shown for figure in _figures(subject, step, longest)]
    return Section(
        id="schedule",
        title="Schedule",
        summary=[_summary(subject, step) for subject, step in shown],
        figures=figures,
    )


def typical_step(subject: RunSubject) -> int | None:
    """Of the traced steps the one in the middle, by their seconds."""
    capture = subject.capture
    if capture is None or not capture.steps:
        return None
    steps = sorted(capture.steps, key=lambda step: _end(capture, step))
    return steps[(len(steps) - 1) // 2]


def _end(capture: ScheduleCapture, step: int) -> float:
    pairs = capture.of_step(step)
    zero = began(pairs)
    return max(one.began - zero + one.seconds for _, one in pairs)


def _longest(subject: RunSubject, step: int) -> float:
    assert subject.capture is not None, "a step of a capture"
    measured = _end(subject.capture, step)
    return measured if subject.planned is None else max(measured, subject.planned.step.end_seconds)


def rows_of(capture: ScheduleCapture, step: int) -> list[tuple[str, list[Stretch]]]:
    """Of all ranks, stage by stage; where they are many, of the first rank of each stage. With names."""
    pairs = sorted(capture.of_step(step), key=lambda pair: (pair[0].stage, pair[0].rank_in_stage))
    zero = began(pairs)
    every = len(pairs) <= MOST_ROWS
    shown = [(rank, one) for rank, one in pairs if every or rank.rank_in_stage == 0]
    several = every and any(rank.rank_in_stage for rank, _ in pairs)
    return [
        (
            f"stage {rank.stage}" + (f", rank {rank.rank}" if several else ""),
            list(_stretches(one, one.began - zero)),
        )
        for rank, one in shown
    ]


def _stretches(step: TracedStep, late: float) -> Iterator[Stretch]:
    """What the time within instructions went to, without waiting. A message is called as its instruction."""
    place = 0
    for instruction in sorted(step.instructions, key=lambda one: one.begin):
        while place < len(step.activities) and step.activities[place].end <= instruction.begin:
            place += 1
        for one in step.activities[place:]:
            if one.begin >= instruction.end:
                break
            begin, end = max(one.begin, instruction.begin), min(one.end, instruction.end)
            name = OF_ACTIVITIES.get(one.name)
            if name is None or end <= begin:
                continue
            if one.name == "transfer" and instruction.name in KINDS:
                name = instruction.name
            yield Stretch(name, instruction.micro_batch, begin + late, end + late)


def measured_data(rows: Sequence[tuple[str, list[Stretch]]], longest: float) -> dict[str, Any]:
    """As the chart of schedules takes it (vdsgen.report.plan.gantt.schedule_data), with the length and the
    micro-batch of each slice."""
    words = dict(KINDS.values()) | {KINDS["DataWait"][0]: "clips"}
    return {
        "longest": longest,
        "end": max((one.end for _, stretches in rows for one in stretches), default=0.0),
        "rows": [_row(stretches) for _, stretches in rows],
        "words": words,
        "names": [name for name, _ in rows],
        "names_px": NAMES_PX,
    }


def _row(stretches: Sequence[Stretch]) -> dict[str, Any]:
    ends = [0.0, *(one.end for one in stretches)]
    gaps = {
        str(place): round(one.begin - ends[place], DIGITS)
        for place, one in enumerate(stretches)
        if one.begin - ends[place] > 10**-DIGITS
    }
    return {
        "letters": "".join(KINDS[one.name][0] for one in stretches),
        "lengths": [round(one.end - one.begin, DIGITS) for one in stretches],
        "gaps": gaps,
        "again": 0,
        "batches": [-1 if one.micro_batch is None else one.micro_batch for one in stretches],
    }


def _figures(subject: RunSubject, step: int, longest: float) -> Iterator[Figure]:
    assert subject.capture is not None, "a step of a capture"
    rows, end = rows_of(subject.capture, step), _end(subject.capture, step)
    height = max(190, min(760, 120 + 34 * len(rows)))
    uncertain = max(rank.clock_uncertainty_seconds for rank in subject.capture.ranks)
    notes = ["Light, hatched stretches are waiting for another stage; collectives include waiting for ranks."]
    if len(rows) < len(subject.capture.ranks):
        notes.insert(0, "One rank of each stage.")
    if uncertain:
        notes.append(f"Clocks of hosts were compared to {seconds(uncertain)}.")
    yield Figure(
        id=subject.id("schedule-measured"),
        title=f"{subject.prefix}As run: step {step}, {seconds(end)}",
        chart="schedule",
        wide=True,
        height_px=height,
        description="A Gantt chart of one measured step: a row for each rank, time to the right, with what "
        "every moment went to.",
        data=measured_data(rows, longest),
        table=_table(rows, _end(subject.capture, step)),
        note=" ".join(notes),
    )
    planned = subject.planned
    if planned is not None:
        simulated = planned.step
        expected = planned.plan.predicted.step_seconds
        by_stage = [
            (
                f"stage {stage}",
                [
                    Stretch(s.name, s.micro_batch, s.begin_seconds, s.end_seconds)
                    for s in simulated.of_stage(stage)
                ],
            )
            for stage in range(simulated.stages)
        ]
        yield Figure(
            id=subject.id("schedule-simulated"),
            title=f"{subject.prefix}As simulated: {seconds(expected)}",
            chart="schedule",
            wide=True,
            height_px=max(190, min(760, 120 + 34 * simulated.stages)),
            description="A Gantt chart of the same step as the planner simulates it, on the same axis.",
            data=schedule_data(simulated, longest) | {"names_px": NAMES_PX},
            table=_table(by_stage, simulated.end_seconds),
            note=excerpt_words(simulated, expected) if simulated.left_out else "",
        )


def _table(rows: Sequence[tuple[str, list[Stretch]]], end: float) -> Table:
    """Seconds of each stage by what they went to."""
    head = ["forward", "backward", "transfer", "reduction, gathering", "optimizer", "data", "waiting"]
    places = {
        "ForwardPass": 0,
        "BackwardPass": 1,
        "ReduceGrads": 3,
        "GatherParameters": 3,
        "OptimizerStep": 4,
        "DataWait": 5,
    }
    cells = []
    for name, stretches in rows:
        spent = [0.0] * 6
        for one in stretches:
            spent[places.get(one.name, 2)] += one.end - one.begin
        cells.append([name, *(seconds(value) for value in (*spent, max(0.0, end - sum(spent))))])
    return Table(head=["stage", *head], rows=cells)


def _summary(subject: RunSubject, step: int) -> str:
    assert subject.capture is not None, "a step of a capture"
    end = _end(subject.capture, step)
    busy = [
        sum(one.end - one.begin for one in stretches if one.name in ("ForwardPass", "BackwardPass"))
        for _, stretches in rows_of(subject.capture, step)
    ]
    line = (
        f"{subject.prefix}Step {step} took {seconds(end)}; the average rank computed in "
        f"{percent(sum(busy) / len(busy) / end)} of it"
    )
    planned = subject.planned
    if planned is not None and planned.plan.predicted.step_seconds:
        line += f". The planner simulates {seconds(planned.plan.predicted.step_seconds)}"
    return f"{line}. For Perfetto: vdsgen report RUN --trace FILE."
