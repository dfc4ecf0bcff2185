"""Curves over steps, of one run or of two on the same axes."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from vdsgen.report.run.subject import RunSubject
from vdsgen.report.section import Figure, Table
from vdsgen.runs.records import Step
from vdsgen.runs.smooth import half_life_of, smoothed, thinned

POINTS = 600
"""Of a curve, at most: more than a screen has."""
ROWS = 40
"""Of a table, at most."""

Points = list[tuple[float, float | None]]
Value = Callable[[Step], float | None]


def series(name: str, points: Sequence[tuple[float, float | None]], **more: Any) -> dict[str, Any]:
    """As the chart builder takes it."""
    return {"name": name, "points": [[x, _short(y)] for x, y in thinned(points, POINTS)], **more}


def raw_and_smoothed(
    subject: RunSubject, what: str, value: Value, *, several: int = 1
) -> list[dict[str, Any]]:
    """The curve as it was measured, thin, and a smoothed one. `several`: runs in the figure."""
    points: Points = [(step.step, value(step)) for step in subject.data.steps]
    smooth = smoothed((y for _, y in points), half_life_of(len(points)))
    colour = subject.number if several > 1 else 0
    return [
        series(f"{subject.prefix}{what}", points, colour=colour, quiet=True, dash=0),
        series(
            f"{subject.prefix}{what}, smoothed",
            [(x, y) for (x, _), y in zip(points, smooth, strict=True)],
            colour=colour,
            dash=subject.number,
        ),
    ]


def restart_marks(subjects: Iterable[RunSubject]) -> list[dict[str, Any]]:
    """Where a run was started again."""
    return [
        {"at": step, "label": f"{subject.prefix}restart"} for subject in subjects for step in subject.restarts
    ]


def line_figure(
    id: str,  # noqa: A002
    title: str,
    curves: list[dict[str, Any]],
    unit: str,
    description: str,
    *,
    name: str = "",
    marks: list[dict[str, Any]] | None = None,
    limits: list[dict[str, Any]] | None = None,
    log: bool = False,
    from_zero: bool = False,
    note: str = "",
    wide: bool = False,
    height_px: int = 320,
) -> Figure:
    """A chart of curves over steps, and the table of them."""
    logarithmic = log and all(y is None or y > 0 for one in curves for _, y in one["points"])
    y: dict[str, Any] = {"name": name or title, "unit": unit}
    if logarithmic:
        y["log"] = True
    if from_zero:
        # Limits too: an axis follows its curves alone.
        highest = [value for one in curves for _, value in one["points"] if value is not None]
        y |= {
            "min": 0,
            "max": rounded_up(max([*highest, *(limit["at"] for limit in limits or [])], default=1)),
        }
    data: dict[str, Any] = {"x": {"name": "step", "unit": "number"}, "y": y, "series": curves}
    if marks:
        data["marks"] = marks
    if limits:
        data["limits"] = limits
    return Figure(
        id=id,
        title=title,
        chart="lines",
        data=data,
        table=_table(curves),
        description=description,
        note=note,
        wide=wide,
        height_px=height_px,
    )


def _table(curves: Sequence[dict[str, Any]]) -> Table:
    """Every curve at some steps."""
    steps = sorted({x for one in curves for x, _ in one["points"]})
    count = min(ROWS, len(steps))
    chosen = [steps[place * (len(steps) - 1) // max(1, count - 1)] for place in range(count)]
    values = [dict(map(tuple, one["points"])) for one in curves]
    rows = [[f"{step:g}", *(_cell(one.get(step)) for one in values)] for step in dict.fromkeys(chosen)]
    return Table(head=["step", *(one["name"] for one in curves)], rows=rows)


def rounded_up(value: float) -> float:
    """A little more, to two figures: where an axis may end."""
    step = 10.0 ** (math.floor(math.log10(value)) - 1) if value > 0 else 1.0
    return float(f"{math.ceil(1.03 * value / step) * step:.6g}")


def _cell(value: float | None) -> str:
    return "" if value is None else f"{value:.5g}"


def _short(value: float | None) -> float | None:
    """Six figures: a page need not hold more."""
    return None if value is None else float(f"{value:.6g}")
