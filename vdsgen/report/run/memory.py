"""Memory that a run has needed, beside what was planned."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from vdsgen.report.run.curves import rounded_up
from vdsgen.report.run.subject import RunSubject
from vdsgen.report.section import Figure, Section, Table
from vdsgen.runs.memory import RankMemory, memory_of
from vdsgen.runs.words import MIB, size_words
from vdsgen.units import GIB

MOST_RANKS = 48
"""Shown one by one; of more, the fullest rank of each stage."""


def memory_section(subjects: Sequence[RunSubject]) -> Section:
    figures = [figure for subject in subjects if (figure := _figure(subject, subjects)) is not None]
    return Section(
        id="memory-measured",
        title="Memory",
        summary=[line for subject in subjects if (line := _summary(subject))],
        figures=figures,
    )


def _summary(subject: RunSubject) -> str:
    ranks = memory_of(subject.data)
    if not ranks:
        return f"{subject.prefix}No memory has been measured."
    fullest = max(ranks, key=lambda rank: rank.ratio or 0)
    where = "" if fullest.stage is None else f" (stage {fullest.stage})"
    measured = size_words(fullest.measured_bytes)
    line = f"{subject.prefix}Rank {fullest.rank}{where} has needed {measured}"
    if fullest.planned_bytes is not None and fullest.ratio is not None:
        line += (
            f", {fullest.ratio:.2f} times the planned {size_words(fullest.planned_bytes)}, the most of all"
        )
    return f"{line}."


def shown_ranks(ranks: Sequence[RankMemory]) -> list[RankMemory]:
    if len(ranks) <= MOST_RANKS:
        return list(ranks)
    fullest: dict[int | None, RankMemory] = {}
    for rank in ranks:
        if rank.stage not in fullest or rank.measured_bytes > fullest[rank.stage].measured_bytes:
            fullest[rank.stage] = rank
    return list(fullest.values())


def _figure(subject: RunSubject, subjects: Sequence[RunSubject]) -> Figure | None:
    every = memory_of(subject.data)
    ranks = shown_ranks(every)
    if not ranks:
        return None
    names = [f"rank {rank.rank}" + ("" if rank.stage is None else f", stage {rank.stage}") for rank in ranks]
    fullest = max(
        max(rank.measured_bytes, rank.planned_bytes or 0) for one in subjects for rank in memory_of(one.data)
    )
    unit, scale = ("GiB", GIB) if fullest >= GIB / 2 else ("MiB", MIB)
    shown: list[dict[str, Any]] = [
        {
            "name": "measured",
            "values": [_scaled(rank.measured_bytes, scale) for rank in ranks],
            "colour": 0,
        }
    ]
    if any(rank.planned_bytes is not None for rank in ranks):
        values = [
            None if rank.planned_bytes is None else _scaled(rank.planned_bytes, scale) for rank in ranks
        ]
        shown.append({"name": "planned", "values": values, "colour": 5})
    capacities = {rank.capacity_bytes for rank in ranks if rank.capacity_bytes is not None}
    # Beside a capacity many times as large, bars would be lines.
    limits = [
        {"at": size / scale, "label": f"capacity {size_words(size)}"}
        for size in sorted(capacities)
        if size < 8 * fullest
    ]
    top = max([fullest, *(size for size in capacities if size < 8 * fullest)])
    data: dict[str, Any] = {
        "categories": names,
        "series": shown,
        "value": {"name": unit, "unit": "gib" if scale == GIB else "number", "max": rounded_up(top / scale)},
    }
    if limits:
        data["limits"] = limits
    left = len(every) - len(ranks)
    processor = subject.data.record is not None and subject.data.record.on_processors
    meaning = (
        "resident memory in the first steps, less all but tensors"
        if processor
        else "the largest sum of tensors (max_memory_allocated)"
    )
    notes = [f"Measured: {meaning}. Planned: without the reserve."]
    if left:
        notes.append(f"Of each stage the rank that needs most; {left} others are left out.")
    if capacities and not limits:
        notes.append(f"The capacity of {size_words(min(capacities))} is far above.")
    return Figure(
        id=subject.id("rank-memory"),
        title=f"{subject.prefix}Peak memory of each rank",
        chart="bars",
        data=data,
        table=Table(
            head=["rank", "measured", "planned", "measured / planned", "capacity"],
            rows=[
                [
                    name,
                    size_words(rank.measured_bytes),
                    "" if rank.planned_bytes is None else size_words(rank.planned_bytes),
                    "" if rank.ratio is None else f"{rank.ratio:.2f}",
                    "" if rank.capacity_bytes is None else size_words(rank.capacity_bytes),
                ]
                for name, rank in zip(names, ranks, strict=True)
            ],
        ),
        description="The highest memory of each rank beside what the plan expects of its stage.",
        note=" ".join(notes),
        wide=len(ranks) > 8,
    )


def _scaled(size_bytes: int, scale: int) -> float:
    return round(size_bytes / scale, 4)
