"""Matrices in 8 bits: what rounding loses, by hand and at any size."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from vdsgen.model.low_precision.quantised import DTYPES, LARGEST, SMALLEST_EXPONENT, quantised
from vdsgen.spec.linear_precision import Format

FORMATS: tuple[Format, ...] = ("int8", "e4m3", "e5m2")
HALF_STEP = {"e4m3": 2.0**-4, "e5m2": 2.0**-3}
"""Of a normal number: half the distance to the next, relative; 3 and 2 bits behind the leading one."""
SMALLEST_STEP = {"e4m3": 2.0**-9, "e5m2": 2.0**-16}


def test_int8_by_hand() -> None:
    found = quantised(torch.tensor([[1.0, -2.54, 0.011], [0.0, 0.0, 0.0]]), "int8")
    assert found.scales.flatten().tolist() == pytest.approx([0.02, 0.0])
    assert found.values.tolist() == [[50, -127, 1], [0, 0, 0]]


def test_fp8_by_hand() -> None:
    # 900 needs a scale of 4: at 2 it would be 450, beyond e4m3's 448. 33 / 4 = 8.25 lies between 8 and 9.
    found = quantised(torch.tensor([[900.0, 33.0, 0.0], [448.0, -1.0, 5.0]]), "e4m3")
    assert found.scales.flatten().tolist() == [4.0, 2.0], "powers of two, never too small"
    assert found.values.float().tolist() == [[224.0, 8.0, 0.0], [224.0, -0.5, 2.5]]


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@given(seed=st.integers(0, 2**31), scale=st.sampled_from([1e-4, 1.0, 3e3]))
@settings(max_examples=10, deadline=None)
def test_what_is_lost_is_half_a_step(form: Format, dtype: torch.dtype, seed: int, scale: float) -> None:
    generator = torch.Generator().manual_seed(seed)
    matrix = (torch.randn(5, 40, generator=generator) * scale).to(dtype)
    found = quantised(matrix, form)
    assert found.values.dtype == DTYPES[form] and found.scales.shape == (5, 1)
    exact = matrix.double()
    lost = (found.values.double() * found.scales.double() - exact).abs()
    if form == "int8":
        assert (lost <= found.scales * 0.5001).all()
        return
    assert (found.values.float().abs() <= LARGEST[form]).all()
    assert (
        lost <= torch.maximum(exact.abs() * HALF_STEP[form], found.scales * SMALLEST_STEP[form] / 2)
    ).all()
    mantissas, _ = torch.frexp(found.scales)
    assert (mantissas == 0.5).all(), "powers of two: scaling loses nothing"


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("bad", [math.inf, -math.inf, math.nan])
def test_what_is_no_number_stays_none(form: Format, bad: float) -> None:
    found = quantised(torch.tensor([[1.0, bad], [1.0, 2.0]]), form)
    back = found.values.float() * found.scales
    assert not back[0].isfinite().any()
    assert back[1].tolist() == pytest.approx([1.0, 2.0], rel=0.01)


@pytest.mark.parametrize("form", FORMATS)
def test_the_smallest_numbers_have_finite_scales(form: Format) -> None:
    found = quantised(torch.tensor([[1e-40, 0.0], [0.0, 0.0]]), form)
    assert (found.values.float() * found.scales).isfinite().all()
    if form != "int8":
        assert found.scales.min() == 2.0**SMALLEST_EXPONENT


@pytest.mark.parametrize("form", FORMATS)
def test_transposed_matrices_are_read_as_they_are(form: Format) -> None:
    matrix = torch.randn(6, 9, generator=torch.Generator().manual_seed(1))
    found, same = quantised(matrix.t(), form), quantised(matrix.t().contiguous(), form)
    assert torch.equal(found.values.float(), same.values.float()) and found.values.is_contiguous()
    assert torch.equal(found.scales, same.scales)
