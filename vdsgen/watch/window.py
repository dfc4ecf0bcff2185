"""The stretch of steps that curves show: all of them, or a part that one moves and stretches."""

from __future__ import annotations

from dataclasses import dataclass

FEWEST = 4
"""Points that a stretch keeps."""
FACTOR = 2


@dataclass(frozen=True, slots=True)
class Window:
    """`share` of all points, with `after` (a share too) to the right of them. With 0 it goes with the run."""

    share: float = 1.0
    after: float = 0.0

    def nearer(self) -> Window:
        return Window(self.share / FACTOR, self.after)._kept()

    def wider(self) -> Window:
        return Window(self.share * FACTOR, self.after)._kept()

    def earlier(self) -> Window:
        return Window(self.share, self.after + self.share / 2)._kept()

    def later(self) -> Window:
        return Window(self.share, self.after - self.share / 2)._kept()

    def _kept(self) -> Window:
        share = min(1.0, max(2.0**-20, self.share))
        return Window(share, min(max(0.0, self.after), 1 - share))

    def bounds(self, points: int) -> tuple[int, int]:
        """Of so many points: the first that is shown, and one past the last."""
        stop = points - round(self.after * points)
        count = min(points, max(FEWEST, round(self.share * points)))
        first = max(0, stop - count)
        return first, min(points, first + count)
