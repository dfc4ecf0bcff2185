"""RUN/traces: when each rank ran which instruction of the schedule, as the trainer has recorded it
(vdsgen.model.monitoring.schedule_trace)."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vdsgen.errors import VdsgenError
from vdsgen.runs.values import mapping, number, object_of, text, whole
from vdsgen.spec.run import ACTIVITIES, TRACES

CAPTURE = re.compile(r"step-([0-9]{8,12})-to-([0-9]{8,12})", re.ASCII)
MOST_BYTES = 64 * 1024**2
"""Of a rank's file."""
INSTRUCTIONS = frozenset(
    {
        "LoadMicroBatch",
        "ForwardPass",
        "BackwardPass",
        "SendActivation",
        "RecvActivation",
        "SendGrad",
        "RecvGrad",
        "ReduceGrads",
        "ReduceTiedGrads",
        "OptimizerStep",
        "WeightAverage",
    }
)
"""DeepSpeed's (runtime/pipe/schedule.py), and the trainer's own; others are left out."""


@dataclass(frozen=True, slots=True)
class Instruction:
    """Seconds since the step began on its rank."""

    name: str
    micro_batch: int | None
    begin: float
    end: float


@dataclass(frozen=True, slots=True)
class Activity:
    """What a stretch of the step went to; seconds as above."""

    name: str
    begin: float
    end: float


@dataclass(frozen=True, slots=True)
class TracedStep:
    step: int
    began: float
    """Seconds by the first rank's clock."""
    seconds: float
    instructions: tuple[Instruction, ...]
    activities: tuple[Activity, ...]


@dataclass(frozen=True, slots=True)
class TracedRank:
    rank: int
    stage: int
    rank_in_stage: int
    clock_uncertainty_seconds: float
    steps: tuple[TracedStep, ...]


@dataclass(frozen=True, slots=True)
class ScheduleCapture:
    """Of some steps, on all ranks."""

    ranks: tuple[TracedRank, ...]

    @property
    def steps(self) -> tuple[int, ...]:
        """That every rank has."""
        of_ranks = [{step.step for step in rank.steps} for rank in self.ranks]
        return tuple(sorted(set.intersection(*of_ranks))) if of_ranks else ()

    def of_step(self, step: int) -> list[tuple[TracedRank, TracedStep]]:
        """That step on every rank."""
        return [(rank, one) for rank in self.ranks for one in rank.steps if one.step == step]


def captures(run: Path) -> list[Path]:
    """Folders of RUN/traces, in the order of their steps."""
    try:
        found = [entry for entry in (run / TRACES).iterdir() if CAPTURE.fullmatch(entry.name)]
    except OSError:
        return []
    return sorted(found, key=lambda entry: entry.name)


def read_trace(folder: Path) -> ScheduleCapture:
    """Raises VdsgenError where a file of it is none."""
    ranks = [_rank(path) for path in sorted(folder.glob("rank_*.jsonl"))]
    if not ranks:
        raise VdsgenError(
            f"{folder}: holds no rank's schedule", remedy="vdsgen launch --trace-steps writes one"
        )
    return ScheduleCapture(tuple(sorted(ranks, key=lambda rank: rank.rank)))


def _rank(path: Path) -> TracedRank:
    if not path.is_file() or path.stat().st_size > MOST_BYTES:
        raise VdsgenError(f"{path}: is no rank's schedule")
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    head = mapping(object_of(lines[0]) if lines else None)
    rank, stage, place = (whole(head.get(key)) for key in ("rank", "stage", "rank_in_stage"))
    steps = [_step(mapping(object_of(line))) for line in lines[1:]]
    if rank is None or stage is None or place is None or None in steps:
        raise VdsgenError(f"{path}: is no rank's schedule, or is damaged", remedy="trace the steps anew")
    return TracedRank(
        rank,
        stage,
        place,
        number(head.get("clock_uncertainty_seconds")) or 0.0,
        tuple(step for step in steps if step is not None),
    )


def _step(values: Mapping[str, Any]) -> TracedStep | None:
    step, began, seconds = (
        whole(values.get("step")),
        number(values.get("began")),
        number(values.get("seconds")),
    )
    if step is None or began is None or seconds is None:
        return None
    instructions = [
        Instruction(name, whole(entry[1]), begin, end)
        for entry in _entries(values.get("instructions"), 4)
        if (name := text(entry[0])) in INSTRUCTIONS and name is not None
        if (span := _span(entry[2], entry[3])) is not None
        for begin, end in [span]
    ]
    activities = [
        Activity(name, begin, end)
        for entry in _entries(values.get("activities"), 3)
        if (name := text(entry[0])) in ACTIVITIES and name is not None
        if (span := _span(entry[1], entry[2])) is not None
        for begin, end in [span]
    ]
    return TracedStep(step, began, seconds, tuple(instructions), tuple(activities))


def _entries(value: Any, length: int) -> list[Sequence[Any]]:
    """Those items of a list that are lists of so many."""
    items = value if isinstance(value, list) else []
    return [item for item in items if isinstance(item, list) and len(item) == length]


def _span(begin: Any, end: Any) -> tuple[float, float] | None:
    first, last = number(begin), number(end)
    return None if first is None or last is None or not 0 <= first <= last else (first, last)
