"""What else could have been planned: memory against time, and why each lost."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from vdsgen.planner.alternatives import alternatives
from vdsgen.planner.compare import compared
from vdsgen.planner.pareto import pareto_front
from vdsgen.planner.search import Candidate
from vdsgen.planner.words import gib, layout_words, seconds, settings_words
from vdsgen.report.plan.subject import PlanSubject
from vdsgen.report.section import Figure, Section, Table
from vdsgen.units import GIB

MOST_POINTS = 300
"""On a plane; the fastest, after those that none beats in both."""
MOST_ROWS = 40
SLOWEST = 3.0
"""Times the plan's step: slower ones would press all others into a corner."""

Progress = Callable[[float], None]


def choice_section(
    subjects: Sequence[PlanSubject], progress: Progress | None = None, *, every: bool = False
) -> Section:
    """A plane for each plan, then its reasons and what was refused, as tables."""
    found = []
    for number, subject in enumerate(subjects):
        share = _part(progress, number, len(subjects))
        found.append(alternatives(subject.workload, subject.candidate, share, every=every))
    both = list(zip(subjects, found, strict=True))
    shown = [one for subject, others in both for one in _in_reach(subject, others)]
    limits = _limits(subjects, shown) if len(subjects) > 1 else {}
    return Section(
        id="alternatives",
        title="Alternatives",
        summary=[_summary(subject, others) for subject, others in both],
        figures=[_plane(subject, others, limits, every=every) for subject, others in both],
        tables=[
            table
            for subject in subjects
            for table in (_reasons(subject), _bindings(subject), _rejected(subject))
            if table.rows
        ],
    )


def _in_reach(subject: PlanSubject, others: Sequence[Candidate]) -> list[Candidate]:
    """The plan, and those that are not much slower."""
    longest = SLOWEST * subject.candidate.time.step_seconds
    return [subject.candidate, *(one for one in others if one.time.step_seconds <= longest)]


def _part(progress: Progress | None, number: int, of: int) -> Progress | None:
    if progress is None:
        return None

    def tell(share: float) -> None:
        progress((number + share) / of)

    return tell


def _limits(subjects: Sequence[PlanSubject], shown: Sequence[Candidate]) -> dict[str, dict[str, float]]:
    """The same axes for all."""
    capacity = max(subject.workload.capacity_bytes for subject in subjects)
    return {
        "x": {
            "min": 0.95 * min(one.time.step_seconds for one in shown),
            "max": 1.05 * max(one.time.step_seconds for one in shown),
        },
        "y": {
            "min": 0.9 * min(one.placed.peak_bytes for one in shown) / GIB,
            "max": 1.05 * max(capacity, *(one.placed.peak_bytes for one in shown)) / GIB,
        },
    }


def _summary(subject: PlanSubject, others: Sequence[Candidate]) -> str:
    search = subject.plan.search
    front = pareto_front([subject.candidate, *others])
    emptier = [one for one in front if one.placed.peak_bytes < subject.candidate.placed.peak_bytes]
    told = ""
    if emptier:
        least = emptier[-1]
        told = (
            f" The emptiest, {settings_words(least.settings)}, needs {gib(least.placed.peak_bytes)} and "
            f"{compared(least, subject.candidate)}."
        )
    return (
        f"{subject.prefix}{search.candidates:,} candidates were looked at. The picture has "
        f"{len(others) + 1:,} that fit on as many GPUs; {len(front)} of them are beaten by none in both "
        f"memory and time.{told}"
    )


def _plane(
    subject: PlanSubject, others: Sequence[Candidate], limits: dict[str, dict[str, float]], *, every: bool
) -> Figure:
    winner, *in_reach = _in_reach(subject, others)
    front = pareto_front([winner, *in_reach])
    first = [one for one in front if one is not winner]
    rest = [one for one in in_reach if not any(one is other for other in first)]
    shown = [winner, *first, *rest][:MOST_POINTS]
    groups: dict[str, list[list[object]]] = {}
    for one in sorted(shown, key=lambda one: (one.settings.pipeline_parallel_size, one.time.step_seconds)):
        pipeline = one.settings.pipeline_parallel_size
        name = "1 stage" if pipeline == 1 else f"{pipeline} stages"
        why = "the plan" if one is winner else f"{compared(one, winner)}"
        groups.setdefault(name, []).append(
            [
                one.time.step_seconds,
                round(one.placed.peak_bytes / GIB, 3),
                settings_words(one.settings),
                why,
            ]
        )
    left_out = len(others) + 1 - len(shown)
    capacity = subject.workload.capacity_bytes
    rows = [
        [
            settings_words(one.settings),
            gib(one.placed.peak_bytes),
            seconds(one.time.step_seconds),
            _why(one, winner, front),
        ]
        for one in shown[:MOST_ROWS]
    ]
    return Figure(
        id=subject.id("alternatives-plane"),
        title=f"{subject.prefix}Memory of the fullest GPU against time of a step",
        chart="alternatives",
        wide=True,
        height_px=440,
        description=(
            f"A scatter plot of {len(shown)} plans by step time and peak memory; the plan takes "
            f"{seconds(winner.time.step_seconds)} and {gib(winner.placed.peak_bytes)}."
        ),
        data={
            "x": {"name": "time of a step", "unit": "seconds", **limits.get("x", {})},
            "y": {"name": "GiB on the fullest GPU", "unit": "gib", **limits.get("y", {})},
            "groups": [{"name": name, "points": points} for name, points in groups.items()],
            "front": [[one.time.step_seconds, round(one.placed.peak_bytes / GIB, 3)] for one in front],
            "winner": {
                "at": [winner.time.step_seconds, round(winner.placed.peak_bytes / GIB, 3)],
                "label": "the plan",
            },
            "limits": [{"at": round(capacity / GIB, 3), "label": f"capacity {capacity / GIB:.4g} GiB"}],
        },
        table=Table(
            head=["settings", "peak", "a step takes", "beside the plan"],
            rows=rows,
            caption=f"The first {len(rows)} of {len(others) + 1}: those that none beats, then the fastest",
            numbers=False,
        ),
        note=_note(left_out, every=every),
    )


def _note(left_out: int, *, every: bool) -> str:
    parts = ["Left and down is better."]
    if not every:
        parts.append(
            "Every variant of the plan's own layout and of that without a pipeline, and the fastest of the "
            "others; --all-alternatives times every variant of all."
        )
    if left_out > 0:
        parts.append(f"{left_out} more are slower than what is shown.")
    parts.append("Stages are not evened out yet, which moves a little memory between them.")
    return " ".join(parts)


def _why(one: Candidate, winner: Candidate, front: Sequence[Candidate]) -> str:
    if one is winner:
        return "the plan"
    beaten = "" if any(one is other for other in front) else " (beaten in both by another)"
    return f"{compared(one, winner)}{beaten}"


def _reasons(subject: PlanSubject) -> Table:
    return Table(
        head=["", "why"],
        rows=[[str(number), reason] for number, reason in enumerate(subject.plan.reasons, start=1)],
        caption=f"{subject.prefix}Why {layout_words(subject.settings)}",
        numbers=False,
    )


def _bindings(subject: PlanSubject) -> Table:
    known = subject.plan.explanations
    bindings = known.bindings if known is not None else ()
    return Table(
        head=["twice as much of", "would win", "because"],
        rows=[
            [one.resource.replace("_", " "), f"{100 * one.gain_fraction:.1f} %", one.detail]
            for one in bindings
        ],
        caption=f"{subject.prefix}What binds the plan",
        numbers=False,
    )


def _rejected(subject: PlanSubject) -> Table:
    return Table(
        head=["why not", "candidates", "what came nearest"],
        rows=[
            [one.reason.replace("_", " "), f"{one.count:,}", one.detail]
            for one in subject.plan.search.rejected
        ],
        caption=f"{subject.prefix}What lost",
        numbers=False,
    )
