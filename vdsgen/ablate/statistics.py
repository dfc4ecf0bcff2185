"""How well predictions ranked what was measured."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from itertools import combinations
from math import sqrt


def kendall_tau(left: Sequence[float], right: Sequence[float]) -> float | None:
    """Kendall's tau-b: 1 where both order their values alike, -1 where they do the opposite.

    (concordant - discordant) / sqrt(pairs untied in left x pairs untied in right): Kendall, "The treatment of
    ties in ranking problems", Biometrika 33 (1945). None where one of them does not order anything.
    """
    concordant = discordant = untied_left = untied_right = 0
    for (a, x), (b, y) in combinations(zip(left, right, strict=True), 2):
        untied_left += a != b
        untied_right += x != y
        concordant += (a < b and x < y) or (a > b and x > y)
        discordant += (a < b and x > y) or (a > b and x < y)
    if not untied_left or not untied_right:
        return None
    return (concordant - discordant) / sqrt(untied_left * untied_right)


def share_of_best(chosen: float, speeds: Sequence[float]) -> float:
    """Speed of a chosen plan over the best measured one: 1 where the choice was the best."""
    return chosen / max(speeds)


def quartiles(values: Sequence[float]) -> tuple[float, float]:
    """Lower and upper quartile, between the values where they fall between; of one value, itself twice."""
    if len(values) == 1:
        return values[0], values[0]
    lower, _, upper = statistics.quantiles(values, n=4, method="inclusive")
    return lower, upper


def relative_error(predicted: float, measured: float) -> float:
    """Positive where too much was predicted."""
    return predicted / measured - 1


def root_mean_square(values: Sequence[float]) -> float:
    return sqrt(sum(value**2 for value in values) / len(values))
