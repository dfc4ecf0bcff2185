"""The pipeline's schedule as a Gantt chart, with and without activation checkpointing."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from vdsgen.cost.settings import Settings
from vdsgen.cost.step_slices import BESIDES, StepSlices, step_slices, without_checkpointing
from vdsgen.planner.words import checkpoint_words, gib, percent, seconds
from vdsgen.report.plan.memory import excerpt_words
from vdsgen.report.plan.subject import PlanSubject
from vdsgen.report.section import Figure, Section, Table

KINDS = {
    "ForwardPass": ("F", "forward"),
    "BackwardPass": ("B", "backward"),
    "SendActivation": ("s", "activations sent"),
    "RecvActivation": ("r", "activations received"),
    "SendGrad": ("t", "gradients sent back"),
    "RecvGrad": ("u", "gradients received"),
    "ReduceGrads": ("R", "gradients reduced"),
    "GatherParameters": ("G", BESIDES["GatherParameters"]),
    "OptimizerStep": ("O", "optimizer step"),
    "OffloadTraffic": ("H", BESIDES["OffloadTraffic"]),
    "DataWait": ("D", BESIDES["DataWait"]),
    "Overhead": ("V", BESIDES["Overhead"]),
}
"""Of every slice: a letter in the page's data, and words."""
COLUMNS = (
    "forward", "recomputation", "backward", "transfers", "collectives", "optimizer", "waiting",
)  # fmt: skip
SHORTEST = 1e-6
"""Of a step: less is rounding."""


class Way(NamedTuple):
    """The plan with or without checkpointing."""

    settings: Settings
    step: StepSlices
    step_seconds: float
    peak_bytes: int
    over_bytes: int
    """Beyond what there is, on the stage that lacks most; negative: free."""
    planned: bool

    @property
    def words(self) -> str:
        with_words = checkpoint_words(self.settings)
        return f"as planned: {with_words}" if self.planned else f"otherwise: {with_words}"

    @property
    def fits_words(self) -> str:
        if self.over_bytes > 0:
            return f"does not fit: {gib(self.over_bytes)} too much on the fullest stage"
        return f"fits, with {gib(-self.over_bytes)} free on the fullest stage"


def other_way(settings: Settings) -> Settings:
    """With every block recomputed where nothing was; with everything kept where something was recomputed."""
    return without_checkpointing(settings) if settings.checkpoints else settings.with_interval(1)


def costed_way(subject: PlanSubject, settings: Settings, *, planned: bool) -> Way:
    """The plan's stages with these settings, costed by the planner's own functions."""
    workload, partition = subject.workload, subject.partition
    peaks = [
        (
            workload.memory(settings, stage.index, *stage.layers).peak_bytes,
            workload.capacity_of(settings, stage.index),
        )
        for stage in subject.plan.stages
    ]
    return Way(
        settings=settings,
        step=subject.step if planned else step_slices(workload.times, settings, partition),
        step_seconds=workload.times.step(settings, partition).step_seconds,
        peak_bytes=max(peak for peak, _ in peaks),
        over_bytes=max(peak - capacity for peak, capacity in peaks),
        planned=planned,
    )


def schedule_section(subjects: Sequence[PlanSubject]) -> Section:
    """Two charts a plan, all on one time axis."""
    ways = {
        subject.letter: (
            costed_way(subject, subject.settings, planned=True),
            costed_way(subject, other_way(subject.settings), planned=False),
        )
        for subject in subjects
    }
    longest = max(way.step.end_seconds for both in ways.values() for way in both)
    return Section(
        id="schedule",
        title="Schedule",
        summary=[line for subject in subjects for line in _summary(subject, *ways[subject.letter])],
        figures=[_figure(subject, way, longest) for subject in subjects for way in ways[subject.letter]],
    )


def _summary(subject: PlanSubject, planned: Way, other: Way) -> list[str]:
    stages = len(subject.plan.stages)
    micro_batches = subject.settings.gradient_accumulation_steps
    shape = (
        f"{stages} stages run {micro_batches} micro-batches in DeepSpeed's 1F1B order; the average stage "
        f"waits {percent(subject.plan.predicted.bubble_fraction)} of the pipeline's time (the bubble)"
        if stages > 1
        else f"One stage runs {micro_batches} micro-batches one after the other"
    )
    change = other.step_seconds / planned.step_seconds - 1
    slower = f"{percent(abs(change))} {'longer' if change > 0 else 'shorter'}"
    return [
        f"{subject.prefix}{shape}.",
        f"{subject.prefix}As planned ({checkpoint_words(planned.settings)}) a step takes "
        f"{seconds(planned.step_seconds)} and the fullest GPU holds {gib(planned.peak_bytes)}. With "
        f"{checkpoint_words(other.settings)} and the same stages it would take "
        f"{seconds(other.step_seconds)}, {slower}, and hold {gib(other.peak_bytes)}: that "
        f"{other.fits_words}.",
    ]


def _figure(subject: PlanSubject, way: Way, longest: float) -> Figure:
    stages, end = way.step.stages, way.step.end_seconds
    name = "schedule-planned" if way.planned else "schedule-other"
    notes = ["Light, hatched stretches are waiting. A backward's recomputation is drawn at its beginning."]
    if way.step.left_out:
        notes.append(excerpt_words(way.step, way.step_seconds))
    return Figure(
        id=subject.id(name),
        title=f"{subject.prefix}{way.words[0].upper()}{way.words[1:]} ({way.fits_words})",
        chart="schedule",
        wide=True,
        height_px=max(190, min(760, 120 + 34 * stages)),
        description=(
            f"A Gantt chart: one row for each of {stages} stages, time to the right; forwards, backwards "
            "with their recomputation, transfers, reduction and the optimizer step of "
            f"{way.step.micro_batches} micro-batches, ending after {seconds(end)}."
        ),
        data=schedule_data(way.step, longest),
        table=Table(
            head=["stage", *COLUMNS],
            rows=[_row(way.step, stage, end) for stage in range(stages)],
            caption="Seconds of each stage in the step shown",
        ),
        note=" ".join(notes),
    )


def schedule_data(step: StepSlices, longest_seconds: float) -> dict[str, Any]:
    """What the chart takes, small: of each stage its slices' letters, how long each letter takes (or each
    slice, where they differ), and where it waits. Micro-batches come in their order."""
    return {
        "longest": longest_seconds,
        "end": step.end_seconds,
        "rows": [_slices(step, stage, longest_seconds) for stage in range(step.stages)],
        "words": dict(KINDS.values()),
    }


def _slices(step: StepSlices, stage: int, longest_seconds: float) -> dict[str, Any]:
    own, least = step.of_stage(stage), SHORTEST * longest_seconds
    letters = "".join(KINDS[one.name][0] for one in own)
    lengths = [one.end_seconds - one.begin_seconds for one in own]
    each = dict(zip(letters, lengths, strict=True))
    alike = all(abs(each[letter] - length) < least for letter, length in zip(letters, lengths, strict=True))
    ends = [0.0, *(one.end_seconds for one in own)]
    gaps = {
        str(place): _short(one.begin_seconds - ends[place])
        for place, one in enumerate(own)
        if one.begin_seconds - ends[place] > least
    }
    return {
        "letters": letters,
        "lengths": {letter: _short(each[letter]) for letter in sorted(each)}
        if alike
        else [_short(length) for length in lengths],
        "gaps": gaps,
        "again": _short(step.recompute_seconds[stage]),
    }


def _short(seconds_taken: float) -> float:
    """Seven digits: finer than a pixel however far one zooms in."""
    return float(f"{seconds_taken:.7g}")


def _row(step: StepSlices, stage: int, end_seconds: float) -> list[str]:
    spent = dict.fromkeys(("forward", "again", "backward", "transfer", "collective", "optimizer"), 0.0)
    kinds = {
        "ForwardPass": "forward",
        "ReduceGrads": "collective",
        "GatherParameters": "collective",
        "OptimizerStep": "optimizer",
        "SendActivation": "transfer",
        "RecvActivation": "transfer",
        "SendGrad": "transfer",
        "RecvGrad": "transfer",
    }
    busy = 0.0
    for one in step.of_stage(stage):
        length = one.end_seconds - one.begin_seconds
        busy += length
        if one.name == "BackwardPass":
            again = min(length, step.recompute_seconds[stage])
            spent["again"] += again
            spent["backward"] += length - again
        elif one.name in kinds:
            spent[kinds[one.name]] += length
    waiting = end_seconds - busy
    return [f"stage {stage}", *(seconds(value) for value in (*spent.values(), waiting))]
