"""Tiles, waves and exponentials: shares in (0, 1], and the published figures they are made of."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vdsgen.cost.efficiency import (
    attention_efficiency,
    matrix_efficiency,
    softmax_share,
    wave_efficiency,
)

sizes = st.integers(1, 40_000)
processors = st.one_of(st.none(), st.integers(1, 304))


@given(sizes, sizes, sizes, processors)
def test_a_products_efficiency_is_a_share(rows: int, columns: int, depth: int, count: int | None) -> None:
    assert 0 < matrix_efficiency(rows, columns, depth, count) <= 1


@given(sizes, sizes, sizes, processors, st.integers(1, 512))
def test_a_larger_product_never_takes_less_time(
    rows: int, columns: int, depth: int, count: int | None, more: int
) -> None:
    def time(m: int, n: int, k: int) -> float:
        return m * n * k / matrix_efficiency(m, n, k, count)

    least = time(rows, columns, depth) * (1 - 1e-9)
    assert time(rows + more, columns, depth) >= least
    assert time(rows, columns + more, depth) >= least
    assert time(rows, columns, depth + more) >= least


@given(
    st.floats(1, 1e5),
    st.floats(1, 1e5),
    st.floats(1, 1e4),
    st.integers(1, 256),
    st.floats(0, 500),
    processors,
)
def test_an_attentions_efficiency_is_a_share(
    queries: float, keys: float, sequences: float, head_size: int, exponential: float, count: int | None
) -> None:
    assert 0 < attention_efficiency(queries, keys, sequences, head_size, exponential, count) <= 1


def test_a_tile_that_is_hardly_filled_costs_a_whole_one() -> None:
    assert matrix_efficiency(128, 256, 512, None) == 1.0
    assert matrix_efficiency(129, 256, 512, None) == pytest.approx(129 / 256)


def test_one_tile_more_than_a_wave_costs_another_wave() -> None:
    """NVIDIA's guide, "Wave Quantization": an A100 has 108 multiprocessors."""
    assert wave_efficiency(108, 108) == 1.0
    assert wave_efficiency(109, 108) == pytest.approx(109 / 216)


def test_few_tiles_are_cut_along_their_depth() -> None:
    shallow, deep = matrix_efficiency(128, 128, 512, 108), matrix_efficiency(128, 128, 512 * 54, 108)
    assert shallow == pytest.approx(1 / 108)
    assert deep == pytest.approx(1 / 2)


def test_exponentials_take_half_of_the_matrix_time_on_h100() -> None:
    """arXiv 2407.08608, section 3.1: 989 TFLOP/s and 3.9 tera exponentials a second, head size 128."""
    share = softmax_share(128, 989 / 3.9)
    assert (1 - share) / share == pytest.approx(0.5, abs=0.01)
    assert softmax_share(64, 100.0) < softmax_share(128, 100.0)
    assert softmax_share(64, 0.0) == 1.0


def test_a_row_of_tiles_starts_in_the_time_of_two_blocks_of_keys() -> None:
    assert attention_efficiency(128, 128, 1, 64, 0.0, None) == pytest.approx(1 / 2)
    assert attention_efficiency(128, 1024, 1, 64, 0.0, None) == pytest.approx(8 / 9)


def test_short_sequences_waste_tiles() -> None:
    def at(length: int) -> float:
        return attention_efficiency(length, length, 10_000, 64, 0.0, None)

    assert at(8) < 0.01 < at(64) < at(128) < at(512) < at(4096)
