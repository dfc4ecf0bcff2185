"""Least squares with coefficients that are not negative, for a handful of unknowns."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations

SINGULAR = 1e-10
"""Pivots below this share of their column's square count as zero: the columns are not independent."""


def nonnegative_least_squares(columns: Sequence[Sequence[float]], target: Sequence[float]) -> list[float]:
    """The x >= 0 that makes sum_j x_j column_j nearest to `target`, one for each column.

    Some subset of the unknowns is positive in the optimum, and there the plain least squares solution of that
    subset is the optimum (Lawson and Hanson, "Solving Least Squares Problems", chapter 23): with at most four
    unknowns all fifteen subsets are tried. Columns that add nothing to others get zero.
    """
    count = len(columns)
    best, best_error = [0.0] * count, _squared_error(columns, [0.0] * count, target)
    for size in range(1, count + 1):
        for subset in combinations(range(count), size):
            solved = _least_squares([columns[index] for index in subset], target)
            if solved is None or min(solved) < 0:
                continue
            candidate = [0.0] * count
            for index, value in zip(subset, solved, strict=True):
                candidate[index] = value
            error = _squared_error(columns, candidate, target)
            if error < best_error * (1 - 1e-12):
                best, best_error = candidate, error
    return best


def _squared_error(columns: Sequence[Sequence[float]], x: Sequence[float], target: Sequence[float]) -> float:
    fitted = [sum(x[j] * column[i] for j, column in enumerate(columns)) for i in range(len(target))]
    return sum((have - want) ** 2 for have, want in zip(fitted, target, strict=True))


def _least_squares(columns: Sequence[Sequence[float]], target: Sequence[float]) -> list[float] | None:
    """By modified Gram-Schmidt and back substitution; None where columns depend on each other."""
    basis: list[list[float]] = []
    upper: list[list[float]] = []
    for column in columns:
        rest, coefficients = list(column), []
        for direction in basis:
            projection = _dot(direction, rest)
            coefficients.append(projection)
            rest = [value - projection * part for value, part in zip(rest, direction, strict=True)]
        squared = _dot(rest, rest)
        if squared <= SINGULAR * _dot(column, column):
            return None
        length = squared**0.5
        basis.append([value / length for value in rest])
        upper.append([*coefficients, length])
    rest, projections = list(target), []
    for direction in basis:
        projection = _dot(direction, rest)
        projections.append(projection)
        rest = [value - projection * part for value, part in zip(rest, direction, strict=True)]
    solution = [0.0] * len(columns)
    for row in range(len(columns) - 1, -1, -1):
        known = sum(upper[column][row] * solution[column] for column in range(row + 1, len(columns)))
        solution[row] = (projections[row] - known) / upper[row][row]
    return solution


def _dot(left: Sequence[float], right: Sequence[float]) -> float:
    return sum(a * b for a, b in zip(left, right, strict=True))
