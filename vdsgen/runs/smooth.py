"""Curves that the eye can follow."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

HALF_LIVES = 40
"""Half-lives of a smoothed curve that a run has steps for, where it has many."""


def half_life_of(steps: int) -> float:
    """Steps after which a value counts half: a fortieth of the run, 2 at least."""
    return max(2.0, steps / HALF_LIVES)


class Smoother:
    """The exponential moving average of what came so far, without the pull towards 0 at its start (divided by
    the sum of the weights, as Adam's moments are: arXiv 1412.6980, section 3). Gaps stay gaps."""

    def __init__(self, half_life: float) -> None:
        self._keep = 0.5 ** (1 / half_life)
        self._total = self._weight = 0.0

    def __call__(self, value: float | None) -> float | None:
        """The average with one value more."""
        if value is None:
            return None
        keep = self._keep
        self._total = keep * self._total + (1 - keep) * value
        self._weight = keep * self._weight + (1 - keep)
        return self._total / self._weight


def smoothed(values: Iterable[float | None], half_life: float) -> list[float | None]:
    """All of them."""
    return list(map(Smoother(half_life), values))


def thinned(points: Sequence[tuple[float, float | None]], most: int) -> list[tuple[float, float | None]]:
    """At most about `most` points that look like all of them: of each stretch its lowest and its highest, in
    order. A stretch without a number is a gap."""
    if len(points) <= most:
        return list(points)
    stretches = max(1, most // 2)
    found: list[tuple[float, float | None]] = []
    for index in range(stretches):
        part = points[index * len(points) // stretches : (index + 1) * len(points) // stretches]
        known = [(value, place) for place, (_, value) in enumerate(part) if value is not None]
        if not known:
            found.append((part[0][0], None))
            continue
        found += [part[place] for place in sorted({min(known)[1], max(known)[1]})]
    return found
