"""Exact polynomials through traced numbers.

Every storage a layer makes has a size that is a product of its geometry's variables, so sums of them are
polynomials with integer coefficients. They are solved for in rational arithmetic, not regressed: a
number that is no such polynomial stops the profile instead of being smoothed over.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction

from vdsgen.profile.points import Point
from vdsgen.spec.profile import Peak, Polynomial

Row = list[Fraction]


class NotPolynomialError(AssertionError):
    """A traced number that the monomials cannot express: the model has changed its nature."""


@dataclass(frozen=True, slots=True)
class Basis:
    """Points to trace and the monomials that they determine."""

    points: tuple[Point, ...]
    """The first len(monomials) determine the coefficients; the others check them."""
    monomials: tuple[str, ...]
    inverse: tuple[tuple[int, ...], ...]
    """Of the table of monomials at the points, times `denominator`: whole numbers are quick."""
    denominator: int

    def polynomial(self, values: Sequence[int]) -> Polynomial:
        """The polynomial through one value a point. Raises NotPolynomialError if there is none."""
        assert len(values) == len(self.points), "one value a point"
        known = values[: len(self.monomials)]
        terms: dict[str, int] = {}
        for monomial, row in zip(self.monomials, self.inverse, strict=True):
            numerator = sum(a * v for a, v in zip(row, known, strict=True))
            coefficient, rest = divmod(numerator, self.denominator)
            if rest:
                raise NotPolynomialError(f"the coefficient of {monomial} is not whole: {values}")
            if coefficient:
                terms[monomial] = coefficient
        found = Polynomial(terms=terms)
        for point, value in zip(self.points, values, strict=True):
            if found.at(point.batch, point.geometry, point.rank) != value:
                raise NotPolynomialError(f"{terms} does not give the traced {value} at {point}")
        return found

    def peak(self, moments: Sequence[Sequence[int]]) -> Peak:
        """The largest moment at any geometry. `moments` has one sequence a point, all equally long."""
        lengths = {len(sequence) for sequence in moments}
        if len(lengths) != 1:
            raise NotPolynomialError(f"the layer runs different operators at different geometries: {lengths}")
        columns = sorted(set(zip(*moments, strict=True)))
        polynomials = [self.polynomial(column) for column in columns]
        return Peak(candidates=_largest(polynomials))


def choose_basis(candidates: Sequence[Point], monomials: Sequence[str], checks: int) -> Basis:
    """Points that tell the monomials apart, and of the monomials those that the points tell apart.

    Where the model's limits make two monomials proportional (learned positions for less than a tile of
    frames, say), the later of them is left out. `checks` further points are traced to check the fit.
    """
    table = [
        [Fraction(Polynomial(terms={m: 1}).at(p.batch, p.geometry, p.rank)) for m in monomials]
        for p in candidates
    ]
    rows, columns = _pivots(table)
    chosen = [candidates[row] for row in rows]
    rest = [point for index, point in enumerate(candidates) if index not in rows]
    inverse = _inverse([[table[row][column] for column in columns] for row in rows])
    denominator = math.lcm(*(value.denominator for row in inverse for value in row))
    return Basis(
        points=(*chosen, *rest[:checks]),
        monomials=tuple(monomials[column] for column in columns),
        inverse=tuple(tuple(int(value * denominator) for value in row) for row in inverse),
        denominator=denominator,
    )


def _pivots(table: Sequence[Sequence[Fraction]]) -> tuple[list[int], list[int]]:
    """Row and column indices of a largest invertible square of the table; early ones are preferred."""
    columns = _independent([list(column) for column in zip(*table, strict=True)])
    rows = _independent([[row[column] for column in columns] for row in table])
    return rows, columns


def _independent(vectors: Sequence[Row]) -> list[int]:
    """Indices of a maximal independent subset, greedily from the first."""
    kept: list[int] = []
    reduced: list[tuple[int, Row]] = []
    for index, vector in enumerate(vectors):
        rest = list(vector)
        for pivot, row in reduced:
            factor = rest[pivot]
            if factor:
                rest = [a - factor * b for a, b in zip(rest, row, strict=True)]
        pivot_here = next((i for i, value in enumerate(rest) if value), None)
        if pivot_here is not None:
            scale = rest[pivot_here]
            reduced.append((pivot_here, [value / scale for value in rest]))
            kept.append(index)
    return kept


def _inverse(matrix: Sequence[Row]) -> list[Row]:
    size = len(matrix)
    work = [list(row) + [Fraction(int(i == j)) for j in range(size)] for i, row in enumerate(matrix)]
    for column in range(size):
        pivot = next(row for row in range(column, size) if work[row][column])
        work[column], work[pivot] = work[pivot], work[column]
        scale = work[column][column]
        work[column] = [value / scale for value in work[column]]
        for row in range(size):
            factor = work[row][column]
            if row != column and factor:
                work[row] = [a - factor * b for a, b in zip(work[row], work[column], strict=True)]
    return [row[size:] for row in work]


def _largest(polynomials: Sequence[Polynomial]) -> tuple[Polynomial, ...]:
    """Those that no other covers at every geometry."""
    kept: list[Polynomial] = []
    for candidate in polynomials:
        if any(_covers(other.terms, candidate.terms) for other in kept):
            continue
        kept = [other for other in kept if not _covers(candidate.terms, other.terms)]
        kept.append(candidate)
    return tuple(sorted(kept, key=lambda polynomial: sorted(polynomial.terms.items())))


def _covers(larger: Mapping[str, int], smaller: Mapping[str, int]) -> bool:
    """Whether `larger` - `smaller` is at least 0 wherever every variable is at least 1 (sufficient).

    Each negative coefficient of the difference is paid for by positive ones of larger monomials: a
    monomial is larger where it has the other's letters and more, and t >= T, s >= S, n >= T * S.
    """
    difference = {m: larger.get(m, 0) - smaller.get(m, 0) for m in {*larger, *smaller}}
    budget = {m: value for m, value in difference.items() if value > 0}
    debts = sorted((m for m, value in difference.items() if value < 0), key=len, reverse=True)
    for debt in debts:
        owed = -difference[debt]
        for payer in sorted(budget, key=len):
            if owed and _at_least(payer, debt):
                paid = min(owed, budget[payer])
                budget[payer] -= paid
                owed -= paid
        if owed:
            return False
    return True


_ROUNDED = {"t": "T", "s": "S", "l": "L", "n": "TS", "j": "TS"}
"""Rounded variables and a product that they are never below (j is T * S + L, so at least T * S)."""


def _at_least(larger: str, smaller: str) -> bool:
    available = "".join(_ROUNDED.get(letter, letter) for letter in larger if letter != "1")
    if any(letter in smaller for letter in _ROUNDED):  # a rounded variable is only bounded by itself
        return all(larger.count(letter) >= smaller.count(letter) for letter in set(smaller))
    return all(available.count(letter) >= smaller.count(letter) for letter in set(smaller) - {"1"})
