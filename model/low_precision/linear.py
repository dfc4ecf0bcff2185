"""Linear layers whose products are in 8 bits: the model's own modules, with another forward.

Parameters, their names, their gradients' dtype, checkpoints and the optimizer stay as they are. A layer keeps
for backward what torch's own keeps: its input where its weight trains, and its weight where its input does.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from types import MethodType
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from vdsgen.model.low_precision.product import quantized_mm
from vdsgen.spec.linear_precision import FORMATS, EightBit


class _QuantizedLinear(torch.autograd.Function):
    """(M, K), (N, K), (N,) -> (M, N)"""

    @staticmethod
    def forward(
        ctx: Any, rows_MK: Tensor, weight_NK: Tensor, bias_N: Tensor | None, kind: EightBit
    ) -> Tensor:
        to_rows, to_weight = ctx.needs_input_grad[:2]
        ctx.kind = kind
        ctx.save_for_backward(rows_MK if to_weight else None, weight_NK if to_rows else None)
        form = FORMATS[kind].forward
        return quantized_mm(rows_MK, weight_NK.t(), bias_N, form, form)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient_MN: Tensor) -> tuple[Tensor | None, ...]:
        rows_MK, weight_NK = ctx.saved_tensors
        formats = FORMATS[ctx.kind]
        to_rows = to_weight = to_bias = None
        if weight_NK is not None:
            with _whole(weight_NK):
                to_rows = quantized_mm(gradient_MN, weight_NK, None, formats.gradient, formats.forward)
        if rows_MK is not None:
            transposed = gradient_MN.t()
            to_weight = (
                quantized_mm(transposed, rows_MK, None, formats.gradient, formats.forward)
                if formats.weight_gradient
                else transposed @ rows_MK
            )
        if ctx.needs_input_grad[2]:
            to_bias = gradient_MN.sum(0)
        return to_rows, to_weight, to_bias, None


@contextmanager
def _whole(weight: Any) -> Iterator[None]:
    """ZeRO-3 may have shared a weight out again before backward comes to it: its own linear gathers it then
    (deepspeed/runtime/zero/linear.py:118)."""
    shared_out = getattr(getattr(weight, "ds_status", None), "name", None) == "NOT_AVAILABLE"
    if shared_out:
        weight.all_gather()
    try:
        yield
    finally:
        if shared_out:
            weight.partition()


def quantized_linear(x: Tensor, weight_NK: Tensor, bias_N: Tensor | None, kind: EightBit) -> Tensor:
    """(..., K) -> (..., N), as F.linear."""
    rows = x.reshape(-1, x.shape[-1])
    result: Tensor = _QuantizedLinear.apply(rows, weight_NK, bias_N, kind)  # type: ignore[no-untyped-call]
    return result.view(*x.shape[:-1], -1)


def linear(layer: nn.Linear, x: Tensor, bias_N: Tensor | None) -> Tensor:
    """The layer's product, in 8 bits where it was told so (`compute_in`)."""
    kind: EightBit | None = getattr(layer, "eight_bit", None)
    if kind is None:
        return F.linear(x, layer.weight, bias_N)
    return quantized_linear(x, layer.weight, bias_N, kind)


def compute_in(kind: EightBit, layer: nn.Linear) -> None:
    """Makes a linear layer multiply in 8 bits from now on."""
    layer.eight_bit = kind  # type: ignore[assignment]
    if type(layer).forward is nn.Linear.forward:
        layer.forward = MethodType(_forward, layer)  # type: ignore[method-assign]


def _forward(layer: nn.Linear, x: Tensor) -> Tensor:
    return linear(layer, x, layer.bias)
