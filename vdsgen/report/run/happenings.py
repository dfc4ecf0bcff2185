"""What happened to a run: its starts and how they ended, alarms, checkpoints."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from vdsgen.planner.words import seconds
from vdsgen.report.run.subject import RunSubject
from vdsgen.report.section import Figure, Section, Table

MOST = 400
"""Events a run, in a chart and its table: the first ones of each kind."""
KINDS = {
    "start": "starts",
    "failed": "failures",
    "not_finite": "not finite",
    "overflow": "overflows",
    "loss_spike": "loss spikes",
    "loss_scale": "loss scale",
    "gradient_drift": "gradient drift",
    "memory_leak": "memory leaks",
    "save": "checkpoints",
}
"""Of events, in the order of their rows; others have their own names."""


def happenings_section(subjects: Sequence[RunSubject]) -> Section | None:
    """None where nothing is known to have happened."""
    figures = [figure for subject in subjects if (figure := _figure(subject, subjects)) is not None]
    if not figures:
        return None
    return Section(
        id="happenings",
        title="Starts, alarms and checkpoints",
        summary=[_summary(subject) for subject in subjects],
        figures=figures,
    )


def _summary(subject: RunSubject) -> str:
    data = subject.data
    starts = () if data.record is None else data.record.starts
    failed = [start.end for start in starts if start.end and not start.was_stopped]
    alarms = sum(alarm.kind != "overflow" for alarm in data.alarms)
    line = f"{subject.prefix}{_count(len(starts), 'start')}, {_count(alarms, 'alarm')}"
    overflows = len(data.alarms) - alarms
    if overflows:
        line += f", {_count(overflows, 'overflow')}"
    line += f", {_count(len(data.saves), 'checkpoint')}."
    return f"{line} The last failure: {failed[-1]}." if failed else line


def _count(number: int, what: str) -> str:
    return f"{number:,} {what}" if number == 1 else f"{number:,} {what}s"


def events(subject: RunSubject) -> list[tuple[int, str, str]]:
    """(step, kind, in words), by step."""
    data = subject.data
    found: list[tuple[int, str, str]] = []
    starts = () if data.record is None else data.record.starts
    for number, start in enumerate(starts, start=1):
        if start.from_step is not None:
            found.append((start.from_step, "start", f"start {number}, from step {start.from_step}"))
        if start.end is not None and not start.was_stopped:
            found.append((start.reached_step or 0, "failed", start.end))
    for alarm in data.alarms:
        remedy = f" -> {alarm.remedy}" if alarm.remedy else ""
        found.append((alarm.step, alarm.kind, f"{alarm.message}{remedy}"))
    for save in data.saves:
        found.append((save.step, "save", f"checkpoint, training waited {seconds(save.blocking_seconds)}"))
    return sorted(found)[:MOST]


def _figure(subject: RunSubject, subjects: Sequence[RunSubject]) -> Figure | None:
    found = events(subject)
    if not found:
        return None
    order = list(KINDS)
    kinds = sorted(
        {kind for _, kind, _ in found}, key=lambda kind: (order.index(kind) if kind in order else 99, kind)
    )
    rows = [KINDS.get(kind, kind.replace("_", " "))[:40] for kind in kinds]
    last = max((one.data.steps[-1].step for one in subjects if one.data.steps), default=1)
    data: dict[str, Any] = {
        "rows": rows,
        "bad": [kind not in ("start", "save", "overflow") for kind in kinds],
        "x": {"name": "step", "unit": "number", "min": 0, "max": last},
        "events": [[step, kinds.index(kind), words[:400]] for step, kind, words in found],
    }
    return Figure(
        id=subject.id("events"),
        title=f"{subject.prefix}What happened when",
        chart="events",
        data=data,
        table=Table(
            head=["step", "what", "in words"],
            rows=[[str(step), KINDS.get(kind, kind), words] for step, kind, words in found],
            numbers=False,
        ),
        description="Starts, failures, alarms and checkpoints on the line of steps, a row a kind.",
        wide=True,
        height_px=90 + 34 * len(rows),
        note=f"The first {MOST} are shown." if len(found) == MOST else "",
    )
