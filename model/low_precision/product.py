"""A matrix product in 8 bits, as one operator of torch's: `vdsgen::quantized_mm`.

It quantises both operands, multiplies, and applies the scales. One operator, so that selective recomputation
keeps what it puts out, as of any product (model/selective.py), and so that traces, which run on tensors
without contents, see a product with a workspace (vdsgen/profile/kernels.py).

A GPU whose tensor cores have the format multiplies in it (torch._scaled_mm, torch._int_mm). Elsewhere fp8 is
emulated: what the 8 bits say is multiplied in a format that holds it exactly, and summed in fp32. The two
differ by the order of their sums alone. int8 sums are integers: exact everywhere.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils.flop_counter import register_flop_formula

from vdsgen.model.low_precision.quantised import Quantised, quantised
from vdsgen.spec.linear_precision import SIZE_MULTIPLE, Format

FEWEST_ROWS = 32
"""Of an int8 product on a GPU: torch._int_mm refuses 16 and fewer (aten/src/ATen/native/cuda/Blas.cpp)."""
FP8_CAPABILITY, INT8_CAPABILITY = (8, 9), (7, 5)
"""Compute capabilities from which tensor cores have the formats: Ada, Turing."""

_library = torch.library.Library("vdsgen", "DEF")  # type: ignore[no-untyped-call]
_library.define(  # type: ignore[no-untyped-call]
    "quantized_mm(Tensor left, Tensor right, Tensor? bias, str left_format, str right_format) -> Tensor"
)

QUANTIZED_MM: Any = torch.ops.vdsgen.quantized_mm
"""The operator, as dispatch modes see it."""


def quantized_mm(
    left: Tensor, right: Tensor, bias: Tensor | None, left_format: Format, right_format: Format
) -> Tensor:
    """(rows, depth) times (depth, columns), and a bias of the columns: (rows, columns) in `left`'s dtype.

    Both operands may have any layout, and are of one dtype. Of fp8 the right one is e4m3.
    """
    result: Tensor = QUANTIZED_MM(left, right, bias, left_format, right_format)
    return result


def _compute(
    left: Tensor, right: Tensor, bias: Tensor | None, left_format: Format, right_format: Format
) -> Tensor:
    dtype = left.dtype
    kernel = int8_product if left_format == "int8" else fp8_product
    if left_format != "int8" and not has_fp8(left.device, dtype):
        kernel = emulated_fp8_product
    return kernel(quantised(left, left_format), quantised(right.t(), right_format), bias, dtype)


def _shape_of_result(left: Tensor, right: Tensor, *_: Any) -> Tensor:
    assert left.shape[1] == right.shape[0] and left.dtype == right.dtype
    return left.new_empty(left.shape[0], right.shape[1])


_library.impl("quantized_mm", _compute, "CompositeExplicitAutograd")  # type: ignore[no-untyped-call]
torch.library.register_fake("vdsgen::quantized_mm", _shape_of_result, lib=_library)


@register_flop_formula(QUANTIZED_MM)
def _flops(left: Any, right: Any, *_: Any, **__: Any) -> int:
    return 2 * int(left[0]) * int(left[1]) * int(right[1])


def has_fp8(device: torch.device, dtype: torch.dtype) -> bool:
    """Whether tensor cores multiply fp8 for a model of this dtype: kernels with a scale for every row put
    out bf16 alone, and AMD's GPUs have another fp8."""
    if device.type != "cuda" or dtype != torch.bfloat16 or torch.version.hip is not None:
        return False
    return torch.cuda.get_device_capability(device) >= FP8_CAPABILITY


def fp8_product(left: Quantised, right: Quantised, bias: Tensor | None, dtype: torch.dtype) -> Tensor:
    """By the GPU's own instruction. `right` is transposed: its rows are the product's columns."""
    # Sums over tokens, whose number is any: zeros add nothing.
    missing = -left.values.shape[1] % SIZE_MULTIPLE
    first, second = (_with_zeros(one.values, missing) for one in (left, right))
    return torch._scaled_mm(
        first,
        second.t(),
        scale_a=left.scales,
        scale_b=right.scales.t(),
        bias=bias,
        out_dtype=dtype,
        use_fast_accum=False,
    )


def _with_zeros(values: Tensor, columns: int) -> Tensor:
    if columns == 0:
        return values
    return F.pad(values.view(torch.int8), (0, columns)).view(values.dtype)


def emulated_fp8_product(
    left: Quantised, right: Quantised, bias: Tensor | None, dtype: torch.dtype
) -> Tensor:
    """The same in a format that holds all that fp8 can say. bf16 on a GPU: its products sum in fp32, and
    scales that are powers of two commute with rounding."""
    in_bf16 = dtype == torch.bfloat16 and left.values.is_cuda
    exact = torch.bfloat16 if in_bf16 else torch.float32
    result = left.values.to(exact) @ right.values.to(exact).t()
    result.mul_(left.scales).mul_(right.scales.t())
    if bias is not None:
        result += bias
    return result.to(dtype)


def int8_product(left: Quantised, right: Quantised, bias: Tensor | None, dtype: torch.dtype) -> Tensor:
    """Sums of at most 2^31 / 127^2 = 133,152 products fit into int32: features, not tokens."""
    rows, values = left.values.shape[0], left.values
    if values.is_cuda and rows < FEWEST_ROWS:
        values = F.pad(values, (0, 0, 0, FEWEST_ROWS - rows))
    scaled = torch._int_mm(values, right.values.t())[:rows] * left.scales
    result = torch.empty_like(scaled, dtype=dtype)
    if bias is None:
        return torch.mul(scaled, right.scales.t(), out=result)
    return torch.addcmul(bias.float(), scaled, right.scales.t(), out=result)
