from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vdsgen.ablate.nonnegative import nonnegative_least_squares

NUMBERS = st.floats(-10, 10, allow_subnormal=False).map(lambda value: round(value, 3))


def test_a_negative_coefficient_is_held_at_zero() -> None:
    # Plain least squares gives (2, -1); with the second at zero the first is the target's mean.
    columns = [[1.0, 1.0, 1.0], [0.0, 1.0, 2.0]]
    target = [2.0, 1.0, 0.0]
    assert nonnegative_least_squares(columns, target) == [pytest.approx(1.0), 0.0]


def test_exact_coefficients_are_found() -> None:
    columns = [[1.0, 2.0, 3.0, 5.0], [1.0, 0.0, 2.0, 1.0], [1.0, 1.0, 1.0, 1.0]]
    target = [2 * a + 0.5 * b + 0.25 * c for a, b, c in zip(*columns, strict=True)]
    assert nonnegative_least_squares(columns, target) == pytest.approx([2.0, 0.5, 0.25])


def test_columns_that_add_nothing_get_nothing() -> None:
    assert nonnegative_least_squares([[1.0, 2.0], [0.0, 0.0]], [2.0, 4.0]) == [pytest.approx(2.0), 0.0]
    twice = nonnegative_least_squares([[1.0, 2.0], [2.0, 4.0]], [2.0, 4.0])
    assert twice[0] + 2 * twice[1] == pytest.approx(2.0)
    assert min(twice) == 0.0


@given(st.data())
def test_the_optimality_conditions_hold(data: st.DataObject) -> None:
    """Karush, Kuhn and Tucker: no gradient pulls a zero up, and positive ones have none."""
    rows, unknowns = data.draw(st.integers(2, 8)), data.draw(st.integers(1, 4))
    columns = data.draw(
        st.lists(st.lists(NUMBERS, min_size=rows, max_size=rows), min_size=unknowns, max_size=unknowns)
    )
    target = data.draw(st.lists(NUMBERS, min_size=rows, max_size=rows))
    matrix = np.array(columns).T
    if np.linalg.matrix_rank(matrix, tol=1e-2) < unknowns:
        return  # nearly dependent columns: the solution is not unique
    x = np.array(nonnegative_least_squares(columns, target))
    gradient = matrix.T @ (matrix @ x - np.array(target))
    slack = 1e-6 * (1 + np.abs(matrix).max() ** 2 * (1 + np.abs(x).max()))
    assert (x >= 0).all()
    assert (gradient >= -slack).all()
    assert np.abs(gradient[x > 1e-9]).max(initial=0.0) <= slack
