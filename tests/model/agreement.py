"""What layouts that share work between ranks must have in common with one process."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tests.model.test_layouts import furthest

Answers = list[dict[str, Any]]
"""What each rank of a case said."""


def trains_to_rounding(found: Answers, reference: Answers) -> None:
    """In fp32: partial sums are added in another order."""
    for answer in found:
        for step, expected in zip(answer["steps"], reference[0]["steps"], strict=True):
            assert step["loss"] == pytest.approx(expected["loss"], rel=1e-5)
            assert step["grad_norm"] == pytest.approx(expected["grad_norm"], rel=1e-4)
    assert furthest(found, reference) < 1e-5


def follows_in_half(found: Answers, reference: Answers, *, bf16: bool) -> None:
    """Half precision rounds partial sums before they are added: to 8 bits in bf16. Adam's step has the
    gradient's sign: weights of small gradients differ by what they moved."""
    for answer in found:
        for step, expected in zip(answer["steps"], reference[0]["steps"], strict=True):
            assert step["loss"] == pytest.approx(expected["loss"], rel=2e-2)
            assert step["grad_norm"] == pytest.approx(expected["grad_norm"], rel=2e-2)
    assert furthest(found, reference) < (0.2 if bf16 else 0.02)


def all_ranks_tell_the_same(found: Answers, reference: Answers, *, half: bool) -> None:
    """Steps and held-out losses to the last bit, and these and predictions as near to one process's as
    rounding allows."""
    near: dict[str, Any] = {"rel": 0.05, "abs": 0.2} if half else {"rel": 1e-3, "abs": 1e-4}
    for answer in found:
        assert answer["steps"] == found[0]["steps"]
        assert answer["held_out"] == found[0]["held_out"]
        losses = np.array(reference[0]["held_out"])
        assert np.array(answer["held_out"]) == pytest.approx(losses, rel=5e-2 if half else 1e-4)
        assert answer["prediction"] == pytest.approx(reference[0]["prediction"], **near)
