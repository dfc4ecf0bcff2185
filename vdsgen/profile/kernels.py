"""What kernels do that a trace of operators does not show. Files named are PyTorch's."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from vdsgen.model.low_precision.product import QUANTIZED_MM
from vdsgen.spec.linear_precision import hidden_terms
from vdsgen.spec.profile import ATTENTION_TILE, AttentionKernel

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


class ChosenAttention(TorchFunctionMode):
    """Attention by one implementation, whatever torch would choose on this device.

    The CPU's flash operator, which the meta device knows too, stands for both fused ones: it keeps what
    CUDA's flash and memory-efficient kernels keep, the output with positions before heads and fp32
    log-sums (of which the efficient kernel rounds the length up to 32). What they need inside their
    backward differs, see `hidden_temporary_bytes`.
    """

    def __init__(self, kernel: AttentionKernel) -> None:
        super().__init__()
        self.kernel = kernel

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is F.scaled_dot_product_attention:
            return self._attend(*args, **(kwargs or {}))
        return func(*args, **(kwargs or {}))

    def _attend(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        attn_mask: Tensor | None = None,
        dropout_p: float = 0.0,
        is_causal: bool = False,
        scale: float | None = None,
        enable_gqa: bool = False,
    ) -> Tensor:
        assert not dropout_p and not enable_gqa, "neither dropout nor grouped queries are modelled"
        if attn_mask is not None and attn_mask.dtype == torch.bool:  # as in attention.cpp
            attn_mask = torch.zeros_like(attn_mask, dtype=query.dtype).masked_fill_(~attn_mask, -torch.inf)
        options = {"attn_mask": attn_mask, "scale": scale}
        if self.kernel == "math":
            result = aten._scaled_dot_product_attention_math(
                query, key, value, dropout_p=0.0, is_causal=is_causal, **options
            )
        else:
            result = aten._scaled_dot_product_flash_attention_for_cpu(
                query, key, value, 0.0, is_causal, **options
            )
        return result[0]  # type: ignore[no-any-return]


def full_text() -> AbstractContextManager[Any]:
    """Masks without contents mask nothing: every prompt is as long as the longest may be.

    Some attention processors take the tokens that a mask leaves (Mochi's, sample by sample), so shapes follow
    from a mask's contents. With all tokens there, memory and work are the most that they can be. No mode of
    torch's: those are off in `Tensor.backward`, where checkpointed layers run again.
    """

    def everywhere(mask: Tensor, *, as_tuple: bool = False) -> Tensor:
        assert not as_tuple, "indices as one tensor"
        return torch.empty(mask.numel(), mask.ndim, dtype=torch.int64, device=mask.device)

    return patch("torch.nonzero", everywhere)


def hidden_temporary_bytes(
    func: Any,
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any] | None = None,
    kernel: AttentionKernel = "flash",
    emulated_in: int | None = None,
) -> int:
    """Temporaries that an operator allocates inside its kernel, and no trace of operators sees.

    * Layer norm, forward and backward, copies what is not contiguous
      (aten/src/ATen/native/layer_norm.cpp, expect_contiguous).
    * Flash attention's backward keeps an fp32 accumulator of the query's gradient and a row sum, with
      sequences rounded up to 128 and heads to 32 (transformers/cuda/flash_attn/flash_api.cpp, mha_bwd):
      for short sequences much more than the query itself. In fp32 the processor's kernel accumulates in
      place and keeps the row sum.
    * The memory-efficient kernel's backward keeps the same sums in fp32, by tiles of 64 or 128 positions;
      128 here (transformers/cuda/mem_eff_attention/kernel_backward.h, workspace_elements_gq, from sm70
      on). Flash attention takes no mask, so masked attention is always this kernel's.

    * Products in 8 bits hold their operands in them (model/low_precision/product.py), and where fp8 is
      emulated what multiplies, of so many bytes an element.

    Left out: block-sized partial sums of norms' weight gradients, and cuBLAS's workspace, which does not
    depend on the layer.
    """
    packet = func.overloadpacket
    if packet is aten.native_layer_norm:
        return _copied_bytes(args[0])
    if packet is aten.native_layer_norm_backward:
        return _copied_bytes(args[0]) + _copied_bytes(args[1])
    if packet is aten._scaled_dot_product_flash_attention_for_cpu_backward:
        masked = (kwargs or {}).get("attn_mask") is not None
        return _attention_backward_bytes(args[1], "efficient" if masked else kernel)
    if packet is QUANTIZED_MM:
        left, right, _, form, _ = args
        sizes = (left.shape[0], right.shape[1], left.shape[1])
        return max(0, *(x.at(*sizes) for x in hidden_terms(form, left.element_size(), emulated_in)))
    return 0


def _copied_bytes(tensor: Tensor) -> int:
    return 0 if tensor.is_contiguous() else tensor.numel() * tensor.element_size()


def _attention_backward_bytes(query: Tensor, kernel: AttentionKernel) -> int:
    batch, heads, length, head_size = query.shape
    if kernel == "flash" and query.element_size() == 4:
        return batch * heads * length * 4
    rows = _rounded(length, ATTENTION_TILE)
    return batch * heads * rows * 4 * (_rounded(head_size, _HEAD_TILE) + 1)


def _rounded(value: int, multiple: int) -> int:
    return -(-value // multiple) * multiple
