"""Smoothed and thinned curves."""

from __future__ import annotations

import pytest

from vdsgen.runs.smooth import smoothed, thinned


def test_a_constant_stays_itself_from_its_first_value() -> None:
    assert smoothed([3.0, 3.0, 3.0], 5.0) == pytest.approx([3.0, 3.0, 3.0])


def test_a_half_life_is_what_it_says_and_gaps_stay() -> None:
    found = smoothed([0.0] * 200 + [None] + [1.0] * 10, 10.0)
    assert found[200] is None
    assert found[-1] is not None and abs(found[-1] - 0.5) < 1e-5


def test_thinning_keeps_the_lowest_the_highest_and_the_gaps() -> None:
    points: list[tuple[float, float | None]] = [(step, float(step % 7)) for step in range(10_000)]
    points[5_000] = (5_000, 99.0)
    points[7_000:8_000] = [(step, None) for step in range(7_000, 8_000)]
    found = thinned(points, 100)
    assert len(found) <= 100
    assert (5_000, 99.0) in found
    assert any(value is None for _, value in found)
    assert [step for step, _ in found] == sorted(step for step, _ in found)
    assert thinned(points[:50], 100) == points[:50]
