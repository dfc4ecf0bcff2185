"""Matrices in 8 bits with a scale for every row: int8, or fp8 (e4m3, e5m2).

fp8's scales are powers of two: scaling is then exact in bf16 and fp32, and rounding to 8 bits the only loss.
They cost at most a bit of range, of which fp8 has enough. int8 has none to give away: its scale is the row's
largest magnitude over 127, applied in fp32.

A row with an infinite or undefined element has an undefined scale: so does then all that it is multiplied
into, and loss scaling and alarms see it.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from vdsgen.spec.linear_precision import Format

DTYPES: dict[Format, torch.dtype] = {
    "int8": torch.int8,
    "e4m3": torch.float8_e4m3fn,
    "e5m2": torch.float8_e5m2,
}
LARGEST: dict[Format, float] = {
    "int8": 127.0,
    "e4m3": torch.finfo(torch.float8_e4m3fn).max,
    "e5m2": torch.finfo(torch.float8_e5m2).max,
}
SMALLEST_EXPONENT = -126
"""Of a scale: its reciprocal is still a number in bf16 and fp32."""


class Quantised(NamedTuple):
    """`values * scales` is about the matrix that was quantised."""

    values: Tensor
    """(rows, depth) in 8 bits, contiguous."""
    scales: Tensor
    """(rows, 1) fp32."""


def quantised(matrix: Tensor, form: Format) -> Quantised:
    """(rows, depth) of any layout."""
    largest = torch.linalg.vector_norm(matrix, torch.inf, dim=-1, keepdim=True).float()
    if form == "int8":
        scales = largest / LARGEST[form]
        values = (matrix * torch.where(scales == 0, 1.0, 1 / scales)).round_().to(DTYPES[form])
        return Quantised(values.contiguous(), scales)
    exponents = torch.frexp(largest / LARGEST[form]).exponent.clamp_min_(SMALLEST_EXPONENT)
    # Zero times infinity is undefined, which frexp forgets.
    scales = torch.ldexp(torch.ones_like(largest), exponents) + 0.0 * largest
    if matrix.dtype == torch.float16:  # has neither bf16's range nor its powers of two
        matrix = matrix.float()
    values = (matrix * (1 / scales).to(matrix.dtype)).to(DTYPES[form])
    return Quantised(values.contiguous(), scales)
