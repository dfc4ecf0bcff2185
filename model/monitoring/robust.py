"""Statistics that a few wild values do not move."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from itertools import combinations

NORMAL = 1.4826
"""Standard deviation of a normal distribution over its median absolute deviation: 1 / Phi^-1(3/4)."""


def median_and_deviation(values: Sequence[float]) -> tuple[float, float]:
    """Median, and NORMAL times the median absolute deviation from it."""
    middle = statistics.median(values)
    return middle, NORMAL * statistics.median(abs(value - middle) for value in values)


def theil_sen(values: Sequence[float]) -> tuple[float, float]:
    """Slope per place of the line through equally spaced values, and the share of pairs that agree with its
    sign.

    The slope is the median over all pairs (Theil 1950, Sen 1968): up to 29% of the values may be anything.
    The share is 1 for a series that only grows and about 1/2 for noise (Kendall's tau is twice it, less 1).
    """
    slopes = [(later - earlier) / (j - i) for (i, earlier), (j, later) in combinations(enumerate(values), 2)]
    slope = statistics.median(slopes)
    agreeing = sum(1 for found in slopes if found * slope > 0)
    return slope, agreeing / len(slopes)
