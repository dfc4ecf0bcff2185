"""A curve in a terminal's characters."""

from __future__ import annotations

from collections.abc import Sequence

from textual_plotext import PlotextPlot

from vdsgen.runs.smooth import thinned
from vdsgen.watch.curves import Curve
from vdsgen.watch.window import Window
from vdsgen.watch.words import CURVE_WORDS, value_words

CELLS_A_TICK = 14
ROWS_A_TICK = 3
POINTS_A_CELL = 2
"""Braille has two columns of dots a cell."""


Points = Sequence[tuple[int, float | None]]


class CurvePlot(PlotextPlot):  # type: ignore[misc]
    """Of one name; shows nothing until there is a curve."""

    def __init__(self, name: str, *, id: str) -> None:  # noqa: A002
        super().__init__(id=id)
        self.curve_name = name
        self._shown: tuple[object, ...] | None = None

    def show(self, curve: Curve | None, window: Window, *, logarithmic: bool) -> None:
        """Draws anew where anything is other than it was."""
        first, stop = window.bounds(0 if curve is None else len(curve.steps))
        points: list[tuple[int, float | None]] = []
        if curve is not None:
            points = list(zip(curve.steps[first:stop], curve.values[first:stop], strict=True))
        key = (tuple(points[-1:]), len(points), window, logarithmic, self.size)
        if key == self._shown:
            return
        self._shown = key
        self.plt.clear_figure()
        self.plt.theme("clear")
        if curve is None or all(value is None for _, value in points):
            self.plt.title(f"{CURVE_WORDS[self.curve_name]}: none here")
        else:
            smooth = list(zip(curve.steps[first:stop], curve.smooth[first:stop], strict=False))
            self._show(curve, points, smooth, logarithmic=logarithmic)
        self.refresh()

    def _show(self, curve: Curve, points: Points, smooth: Points, *, logarithmic: bool) -> None:
        """Of a curve that has a number at least; `smooth` may be empty."""
        width, height = max(20, self.size.width), max(6, self.size.height)
        known = [value for _, value in (*points, *smooth) if value is not None]
        low, high = min(known), max(known)
        logarithmic = logarithmic and low > 0 and self.curve_name != "learning_rate"
        if logarithmic:
            self.plt.yscale("log")
        self._draw(points, width, "gray" if smooth else "cyan", "dot" if smooth else "braille")
        if smooth:
            self._draw(smooth, width, "cyan", "braille")
        last = value_words(self.curve_name, curve.last_smooth if smooth else curve.last)
        how = (" smoothed" if smooth else "") + (", log" if logarithmic else "")
        self.plt.title(f"{CURVE_WORDS[self.curve_name]} {last}{how}")
        left, right = points[0][0], max(points[-1][0], points[0][0] + 1)
        self.plt.xlim(left, right)
        marks = ticks(left, right, max(2, width // CELLS_A_TICK))
        self.plt.xticks(marks, [f"{mark:,}" for mark in marks])
        levels = heights(low, high, max(2, height // ROWS_A_TICK), logarithmic=logarithmic)
        self.plt.yticks(levels, [value_words(self.curve_name, level) for level in levels])

    def _draw(self, points: Points, width: int, colour: str, marker: str) -> None:
        few = thinned(points, POINTS_A_CELL * width)
        shown = [(step, value) for step, value in few if value is not None]
        if not shown:
            return
        steps, values = zip(*shown, strict=True)
        draw = self.plt.scatter if marker == "dot" else self.plt.plot
        draw(steps, values, color=colour, marker=marker)


def ticks(first: int, last: int, most: int) -> list[int]:
    """Whole steps, the first and the last among them."""
    count = max(2, min(most, last - first + 1))
    return sorted({first + round(place * (last - first) / (count - 1)) for place in range(count)})


def heights(low: float, high: float, count: int, *, logarithmic: bool) -> list[float]:
    """Values from `low` to `high`, at equal distances on the axis."""
    if high <= low:
        return [low]
    shares = [place / (count - 1) for place in range(count)]
    if logarithmic:
        return [low ** (1 - share) * high**share for share in shares]
    return [low * (1 - share) + high * share for share in shares]
