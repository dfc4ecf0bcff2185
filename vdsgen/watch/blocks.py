"""Curves and bars in a line of characters."""

from __future__ import annotations

from collections.abc import Sequence

BLOCKS = "▁▂▃▄▅▆▇█"
PLAIN_BLOCKS = "_.,-=+*#"
"""For terminals and files that are not UTF-8."""


def sparkline(values: Sequence[float | None], width: int, *, unicode: bool = True) -> str:
    """The last value at the right; each cell the mean of its stretch; a gap is blank."""
    marks = BLOCKS if unicode else PLAIN_BLOCKS
    cells = _means(values, width)
    known = [value for value in cells if value is not None]
    if not known:
        return ""
    low, high = min(known), max(known)
    span = high - low
    if span <= 0 or span == float("inf"):
        return "".join(" " if value is None else marks[len(marks) // 2 - 1] for value in cells)
    return "".join(
        " " if value is None else marks[min(len(marks) - 1, int((value - low) / span * len(marks)))]
        for value in cells
    )


def _means(values: Sequence[float | None], width: int) -> list[float | None]:
    """At most `width` of them."""
    cells = min(width, len(values))
    found: list[float | None] = []
    for cell in range(cells):
        part = values[cell * len(values) // cells : (cell + 1) * len(values) // cells]
        known = [value for value in part if value is not None]
        found.append(sum(known) / len(known) if known else None)
    return found


def bar(share: float, width: int) -> str:
    """`[####....]`, of `width` cells in all."""
    inner = max(0, width - 2)
    filled = round(max(0.0, min(1.0, share)) * inner)
    return f"[{'#' * filled}{'.' * (inner - filled)}]"
