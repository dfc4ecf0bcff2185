from __future__ import annotations

from math import sqrt

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vdsgen.ablate.statistics import (
    kendall_tau,
    quartiles,
    relative_error,
    root_mean_square,
    share_of_best,
)

SPEEDS = st.lists(st.integers(-50, 50).map(float), min_size=2, max_size=12)


def test_tau_by_hand() -> None:
    # Pairs of (1, 2, 3, 4) and (1, 3, 2, 4): five agree, one does not.
    assert kendall_tau([1, 2, 3, 4], [1, 3, 2, 4]) == pytest.approx(4 / 6)
    assert kendall_tau([1, 2, 3], [30, 20, 10]) == -1
    # A tie on one side: two concordant pairs of three, one of them untied on the left alone.
    assert kendall_tau([1, 2, 3], [1, 1, 2]) == pytest.approx(2 / sqrt(3 * 2))


@pytest.mark.parametrize("values", [[], [1.0], [2.0, 2.0, 2.0]])
def test_tau_of_what_orders_nothing_is_not_defined(values: list[float]) -> None:
    assert kendall_tau(values, [float(index) for index in range(len(values))]) is None


@given(st.data())
def test_tau_is_symmetric_and_turns_its_sign(data: st.DataObject) -> None:
    left = data.draw(SPEEDS)
    right = data.draw(st.lists(st.integers(-50, 50).map(float), min_size=len(left), max_size=len(left)))
    tau = kendall_tau(left, right)
    assert tau == kendall_tau(right, left)
    opposite = kendall_tau(left, [-value for value in right])
    assert (tau is None) == (opposite is None)
    if tau is not None and opposite is not None:
        assert -1 - 1e-12 <= tau <= 1 + 1e-12
        assert opposite == pytest.approx(-tau)


@given(SPEEDS.filter(lambda values: len(set(values)) > 1))
def test_tau_sees_the_order_alone(values: list[float]) -> None:
    assert kendall_tau(values, [value**3 + value for value in values]) == pytest.approx(1)


def test_the_rest_by_hand() -> None:
    assert share_of_best(3.0, [2.0, 4.0, 3.0]) == 0.75
    assert quartiles([7.0]) == (7.0, 7.0)
    assert quartiles([1.0, 2.0, 3.0, 4.0]) == (1.75, 3.25)
    assert relative_error(12.0, 10.0) == pytest.approx(0.2)
    assert root_mean_square([3.0, -4.0]) == pytest.approx(sqrt(12.5))
