"""Pictures reach the model's size whole in shape, placed where asked, and smoothly."""

from __future__ import annotations

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from vdsgen.model.data.picture import fit, to_uint8, to_unit_range


@settings(max_examples=60, deadline=None)
@given(
    source=st.tuples(st.integers(1, 90), st.integers(1, 90)),
    target=st.tuples(st.integers(1, 40), st.integers(1, 40)),
    offset=st.floats(0, 1),
    level=st.integers(0, 255),
)
def test_any_size_becomes_the_asked_one_and_keeps_its_colour(
    source: tuple[int, int], target: tuple[int, int], offset: float, level: int
) -> None:
    fitted = fit(np.full((*source, 3), level, np.uint8), *target, offset=offset)
    assert fitted.shape == (*target, 3) and fitted.dtype == np.uint8
    assert (fitted == level).all()


def test_the_window_has_the_targets_shape_and_lies_where_the_offset_says() -> None:
    picture = np.zeros((40, 120, 3), np.uint8)
    picture[:, :40], picture[:, 40:80], picture[:, 80:] = 10, 120, 240
    for offset, level in ((0.0, 10), (0.5, 120), (1.0, 240)):
        assert (fit(picture, 20, 20, offset=offset) == level).all()
    upright = picture.transpose(1, 0, 2)
    for offset, level in ((0.0, 10), (0.5, 120), (1.0, 240)):
        assert (fit(upright, 20, 20, offset=offset) == level).all()


def test_a_picture_of_the_right_size_is_left_alone() -> None:
    picture = np.random.default_rng(0).integers(0, 256, (24, 32, 3), np.uint8)
    assert np.array_equal(fit(picture, 24, 32), picture)


def test_shrinking_averages_instead_of_picking() -> None:
    board = np.indices((64, 64)).sum(0) % 2 * 255
    picture = np.repeat(board[..., None], 3, axis=2).astype(np.uint8)
    shrunk = fit(picture, 8, 8).astype(int)
    assert np.abs(shrunk - 127).max() < 16


def test_the_unit_range_is_exact_both_ways() -> None:
    levels = torch.arange(256, dtype=torch.uint8)
    unit = to_unit_range(levels)
    assert unit.min() == -1 and unit.max() == 1
    assert torch.equal(to_uint8(unit), levels)
    assert torch.equal(to_uint8(torch.tensor([-3.0, 3.0])), torch.tensor([0, 255], dtype=torch.uint8))
