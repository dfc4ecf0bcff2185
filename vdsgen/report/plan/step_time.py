"""Where the seconds of a step go."""

from __future__ import annotations

from collections.abc import Sequence

from vdsgen.planner.compare import PARTS
from vdsgen.planner.words import percent, seconds
from vdsgen.report.plan.subject import PlanSubject
from vdsgen.report.section import Figure, Section, Table
from vdsgen.spec.plan import TimeSplit

LEAST_SECONDS = 1e-9
COLOURS = {
    "compute_seconds": "backward",
    "recompute_seconds": "recompute",
    "bubble_seconds": "other",
    "tensor_seconds": "exchange",
    "sequence_seconds": "exchange",
    "transfer_seconds": "transfer",
    "reduction_seconds": "exchange",
    "gather_seconds": "exchange",
    "optimizer_seconds": "optimizer",
    "offload_seconds": "other",
    "data_seconds": "other",
    "overhead_seconds": "other",
}
"""As the schedule has them."""


def step_time_section(subjects: Sequence[PlanSubject]) -> Section | None:
    """None for plans made before steps were split."""
    splits = {subject.letter: subject.plan.predicted.split for subject in subjects}
    known = [(subject, split) for subject in subjects if (split := splits[subject.letter]) is not None]
    if len(known) < len(subjects):
        return None
    longest = max(subject.plan.predicted.step_seconds for subject in subjects)
    causes = [key for key in PARTS if any(getattr(split, key) > LEAST_SECONDS for _, split in known)]
    return Section(
        id="step-time",
        title="Where a step's time goes",
        summary=[_summary(subject, split) for subject, split in known],
        figures=[_figure(subject, split, causes, longest) for subject, split in known],
    )


def _summary(subject: PlanSubject, split: TimeSplit) -> str:
    step = subject.plan.predicted.step_seconds
    useful = split.compute_seconds / step
    others = sorted((key for key in PARTS if key != "compute_seconds"), key=lambda key: -getattr(split, key))
    most = [key for key in others[:2] if getattr(split, key) > 0.005 * step]
    told = " and ".join(f"{PARTS[key]} ({percent(getattr(split, key) / step)})" for key in most)
    rest = f" Most of the rest goes to {told}." if told else ""
    return f"{subject.prefix}Of {seconds(step)}, {percent(useful)} compute forward and backward.{rest}"


def _figure(subject: PlanSubject, split: TimeSplit, causes: Sequence[str], longest: float) -> Figure:
    step = subject.plan.predicted.step_seconds
    values = [getattr(split, key) for key in causes]
    bases = [sum(values[:place]) for place in range(len(values))]
    return Figure(
        id=subject.id("step-time-waterfall"),
        title=f"{subject.prefix}One step by cause",
        chart="waterfall",
        height_px=360,
        description=f"A waterfall up to {seconds(step)}: one bar a cause, from where the last one ended.",
        data={
            "categories": [*(PARTS[key] for key in causes), "the step"],
            "bases": [*bases, 0.0],
            "falls": [0.0] * (len(values) + 1),
            "rises": [*values, 0.0],
            "totals": [*([0.0] * len(values)), step],
            "colours": [*(COLOURS[key] for key in causes), "forward"],
            "value": {"name": "seconds", "unit": "seconds", "max": longest * 1.06},
        },
        table=Table(
            head=["cause", "seconds", "share"],
            rows=[
                *(
                    [PARTS[key], seconds(value), percent(value / step)]
                    for key, value in zip(causes, values, strict=True)
                ),
                ["the step", seconds(step), percent(1.0)],
            ],
        ),
        note="Of the average stage; waiting for others is the bubble.",
    )
