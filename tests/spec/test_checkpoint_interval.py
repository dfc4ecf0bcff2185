from __future__ import annotations

from math import inf

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vdsgen.spec.checkpoint_interval import (
    best_steps,
    daly_seconds,
    overhead_fraction,
    young_seconds,
)

MINUTE, HOUR = 60.0, 3600.0


@pytest.mark.parametrize(
    ("between_hours", "optimum_minutes"),
    [(24.0, 117), (6.0, 57), (0.25, 9.1)],
)
def test_the_optimum_is_the_published_one(between_hours: float, optimum_minutes: float) -> None:
    """Daly 2006, figures 3 to 5: delta = 5 min."""
    found = daly_seconds(5 * MINUTE, between_hours * HOUR) / MINUTE
    assert found == pytest.approx(optimum_minutes, abs=0.5 if optimum_minutes > 10 else 0.05)


def test_young_s_is_its_square_root() -> None:
    assert young_seconds(50.0, 10_000.0) == pytest.approx(1000.0)


def test_failures_more_often_than_saves_end_leave_the_mean_between_them() -> None:
    assert daly_seconds(100.0, 50.0) == 50.0


@settings(max_examples=50)
@given(st.floats(0.01, 1000), st.floats(3, 1e5), st.floats(0, 1e4))
def test_no_interval_costs_much_less_than_the_estimate(delta: float, ratio: float, restart: float) -> None:
    between = delta * ratio
    tau = daly_seconds(delta, between)
    least = min(overhead_fraction(tau * (1 + step / 50), delta, between, restart) for step in range(-40, 200))
    found = overhead_fraction(tau, delta, between, restart)
    assert 1 + found <= (1 + least) * 1.005 or found == inf


@settings(max_examples=50)
@given(st.floats(0.01, 100), st.floats(0.01, 1000), st.floats(10, 1e7), st.integers(1, 10**5))
def test_whole_steps_cost_no_more_than_their_neighbours(
    step: float, delta: float, between: float, most: int
) -> None:
    best = best_steps(step, delta, between, most)
    assert 1 <= best <= most

    def costs(steps: int) -> float:
        return overhead_fraction(steps * step, delta, between, 0.0)

    if 20 * delta < between:  # where the estimate is that good
        nearby = [steps for steps in (best // 2, 2 * best) if 1 <= steps <= most]
        assert all(1 + costs(best) <= (1 + costs(steps)) * 1.001 for steps in nearby)


def test_cost_is_saving_and_lost_work_where_failures_are_rare() -> None:
    """First order: delta / tau + (tau / 2 + R) / M."""
    tau, delta, between, restart = 1000.0, 10.0, 1e6, 100.0
    assert overhead_fraction(tau, delta, between, restart) == pytest.approx(
        delta / tau + (tau / 2 + restart) / between, rel=0.03
    )


def test_a_run_that_can_never_end_costs_without_end() -> None:
    assert overhead_fraction(1000.0, 1.0, 1.0, 0.0) == inf
