"""A curve in a terminal's characters."""

from __future__ import annotations

from collections.abc import Sequence

from textual_plotext import PlotextPlot

from vdsgen.runs.smooth import thinned
from vdsgen.watch.curves import Curve
from vdsgen.watch.window import Window
from vdsgen.watch.words import CURVE_WORDS, value_words

CELLS_A_TICK = 14
POINTS_A_CELL = 2
"""Braille has two columns of dots a cell."""


class CurvePlot(PlotextPlot):  # type: ignore[misc]
    """Of one name; shows nothing until there is a curve."""

    def __init__(self, name: str, *, id: str) -> None:  # noqa: A002
        super().__init__(id=id)
        self.curve_name = name
        self._shown: tuple[object, ...] | None = None

    def show(self, curve: Curve | None, window: Window, *, logarithmic: bool) -> None:
        """Draws anew where anything is other than it was."""
        width = max(20, self.size.width)
        first, stop = window.bounds(0 if curve is None else len(curve.steps))
        points = (
            [] if curve is None else list(zip(curve.steps[first:stop], curve.values[first:stop], strict=True))
        )
        key = (tuple(points[-1:]), len(points), window, logarithmic, self.size)
        if key == self._shown:
            return
        self._shown = key
        plot = self.plt
        plot.clear_figure()
        plot.theme("clear")
        label = CURVE_WORDS[self.curve_name]
        known = [value for _, value in points if value is not None]
        if curve is None or not known:
            plot.title(f"{label}: none yet")
            self.refresh()
            return
        logarithmic = logarithmic and min(known) > 0 and self.curve_name != "learning_rate"
        if logarithmic:
            plot.yscale("log")
        smooth = list(zip(curve.steps[first:stop], curve.smooth[first:stop], strict=False))
        self._draw(points, width, "gray" if smooth else "cyan", "dot" if smooth else "braille")
        if smooth:
            self._draw(smooth, width, "cyan", "braille")
        last = value_words(self.curve_name, curve.last_smooth if smooth else curve.last)
        plot.title(f"{label} {last}" + (" smoothed" if smooth else "") + (", log" if logarithmic else ""))
        left, right = points[0][0], max(points[-1][0], points[0][0] + 1)
        plot.xlim(left, right)
        marks = ticks(left, right, max(2, width // CELLS_A_TICK))
        plot.xticks(marks, [f"{mark:,}" for mark in marks])
        self.refresh()

    def _draw(self, points: Sequence[tuple[int, float | None]], width: int, colour: str, marker: str) -> None:
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
