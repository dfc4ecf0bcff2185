"""Matrices in 8 bits with a scale for every row: int8, or fp8 (e4m3, e5m2).

fp8's scales are powers of two: scaling is then exact, and rounding to 8 bits the only loss. They cost at most
a bit of range, of which fp8 has enough. int8 has none to give away: its scale is the row's largest magnitude
over 127.

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
"""Of a scale: its reciprocal is still a number in fp32."""
MAGIC = 1.5 * 2.0**23
"""Its last 8 bits are zero, and those of MAGIC + n are n's."""


class Quantised(NamedTuple):
    """`values * scales` is about the matrix that was quantised."""

    values: Tensor
    """(rows, depth) in 8 bits, contiguous."""
    scales: Tensor
    """(rows, 1) fp32."""


def quantised(matrix: Tensor, form: Format) -> Quantised:
    """(rows, depth) of any layout. On a GPU the matrix is read twice, and for fp8 nothing is written but its
    8 bits: scaling converts what it reads and what it writes."""
    largest = torch.linalg.vector_norm(matrix, torch.inf, dim=-1, keepdim=True).float()
    if form == "int8":
        scales = largest / LARGEST[form]
        return Quantised(_rounded(matrix, torch.where(scales == 0, 1.0, 1 / scales)), scales)
    exponents = torch.frexp(largest / LARGEST[form]).exponent.clamp_min_(SMALLEST_EXPONENT)
    # Zero times infinity is undefined, which frexp forgets.
    scales = torch.ldexp(torch.ones_like(largest), exponents) + 0.0 * largest
    values = torch.empty(matrix.shape, dtype=DTYPES[form], device=matrix.device)
    return Quantised(torch.mul(matrix, 1 / scales, out=values), scales)


def _rounded(matrix: Tensor, factors: Tensor) -> Tensor:
    """matrix * factors to the nearest integers, which are at most 127. Beside MAGIC a number has no bits
    behind the point: adding it rounds, and leaves the integer in the last bits."""
    shifted = torch.empty(matrix.shape, dtype=torch.float32, device=matrix.device)
    torch.addcmul(torch.full((), MAGIC, device=matrix.device), matrix, factors, out=shifted)
    return shifted.view(torch.int32).to(torch.int8)
