"""What kernels do that a trace of operators does not show. Files named are PyTorch's."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from vdsgen.spec.profile import ATTENTION_TILE

aten = torch.ops.aten
_HEAD_TILE = 32


@dataclass(frozen=True, slots=True)
class Attention:
    """An attention operator: where its query is among the arguments, and its work in forwards."""

    query: int
    forward_equivalents: float


_ATTENTION = {
    aten._scaled_dot_product_flash_attention_for_cpu: Attention(query=0, forward_equivalents=1.0),
    # Five matrix products against two, recomputation included (arXiv 2307.08691, section 4.1).
    aten._scaled_dot_product_flash_attention_for_cpu_backward: Attention(query=1, forward_equivalents=2.5),
}


def attention_of(func: Any) -> Attention | None:
    """The attention operator that `func` is, if it is one."""
    return _ATTENTION.get(func.overloadpacket)


def hidden_temporary_bytes(func: Any, args: tuple[Any, ...]) -> int:
    """Temporaries that an operator allocates inside its kernel, and no trace of operators sees.

    * Layer norm, forward and backward, copies what is not contiguous
      (aten/src/ATen/native/layer_norm.cpp, expect_contiguous).
    * Flash attention's backward keeps an fp32 accumulator of the query's gradient and a row sum, with
      sequences rounded up to 128 and heads to 32 (transformers/cuda/flash_attn/flash_api.cpp, mha_bwd):
      for short sequences much more than the query itself. In fp32, CUDA takes the memory-efficient kernel,
      which accumulates in place and keeps the row sum (transformers/cuda/attention_backward.cu).

    Left out: block-sized partial sums of norms' weight gradients, and cuBLAS's workspace, which does not
    depend on the layer.
    """
    packet = func.overloadpacket
    if packet is aten.native_layer_norm:
        return _copied_bytes(args[0])
    if packet is aten.native_layer_norm_backward:
        return _copied_bytes(args[0]) + _copied_bytes(args[1])
    if packet is aten._scaled_dot_product_flash_attention_for_cpu_backward:
        return _attention_backward_bytes(args[1])
    return 0


def _copied_bytes(tensor: Tensor) -> int:
    return 0 if tensor.is_contiguous() else tensor.numel() * tensor.element_size()


def _attention_backward_bytes(query: Tensor) -> int:
    batch, heads, length, head_size = query.shape
    if query.element_size() == 4:
        return batch * heads * length * 4
    rows = _rounded(length, ATTENTION_TILE)
    return batch * heads * rows * 4 * (_rounded(head_size, _HEAD_TILE) + 1)


def _rounded(value: int, multiple: int) -> int:
    return -(-value // multiple) * multiple
