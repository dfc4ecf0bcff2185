"""Medians and worst rows, over all rows and by source."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median
from typing import NamedTuple

from vdsgen.published.compare import Comparison, Outcome

MEMORY_LIMIT = 0.25
TIME_LIMIT = 0.5
"""Errors beyond which a row is called off, and its reason looked for."""


class Errors(NamedTuple):
    """Absolute errors of the figures that count, as fractions."""

    compared: int
    """Figures with a prediction, ceilings that are kept included."""
    median: float | None
    worst: float | None
    worst_line: int | None


class Summary(NamedTuple):
    """Of a set of outcomes."""

    rows: int
    memory_rows: int
    """Rows that have a figure of memory."""
    memory: Errors
    allocated: Errors
    """Memory that torch counted as allocated."""
    time_rows: int
    time: Errors


def summary(outcomes: Sequence[Outcome]) -> Summary:
    """Medians and worst rows of these."""
    memory = [(one.row.line, one.memory) for one in outcomes if one.memory is not None]
    allocated = [
        (one.row.line, one.memory)
        for one in outcomes
        if one.memory is not None and one.row.mem_kind == "allocated"
    ]
    seconds = [(one.row.line, one.seconds) for one in outcomes if one.seconds is not None]
    return Summary(
        rows=len(outcomes),
        memory_rows=len(memory) + sum(one.memory_reason is not None for one in outcomes),
        memory=_errors(memory),
        allocated=_errors(allocated),
        time_rows=len(seconds) + sum(one.seconds_reason is not None for one in outcomes),
        time=_errors(seconds),
    )


def by_source(outcomes: Sequence[Outcome]) -> dict[str, list[Outcome]]:
    """In the order in which sources first appear."""
    groups: dict[str, list[Outcome]] = {}
    for one in outcomes:
        groups.setdefault(one.row.source, []).append(one)
    return groups


def _errors(figures: Sequence[tuple[int, Comparison]]) -> Errors:
    counted = [(abs(figure.error), line) for line, figure in figures if figure.counts]
    if not counted:
        return Errors(len(figures), None, None, None)
    worst, line = max(counted)
    return Errors(len(figures), median(error for error, _ in counted), worst, line)
