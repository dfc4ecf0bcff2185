"""Kernels of Megatron and Transformer Engine as far as memory goes: what each keeps, and what it allocates.

They run on meta tensors under the ledger (vdsgen/profile/ledger.py). Collectives are an empty result of the
right size. Tensors are batch x sequence x width (B, S, H) or flat (N, H).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function

aten = torch.ops.aten


def run(kernel: type[Function], *arguments: Any) -> Tensor:
    """The result of one of the functions below."""
    result: Tensor = kernel.apply(*arguments)  # type: ignore[no-untyped-call]
    return result


class Gathered(Function):
    """All-gather of a sequence's shards in forward, reduce-scatter of the gradient in backward."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, ranks: int) -> Tensor:
        ctx.ranks = ranks
        return _along_sequence(x, ranks, 1)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Any:
        return _along_sequence(gradient, 1, ctx.ranks), None


class Scattered(Function):
    """Reduce-scatter in forward, all-gather of the gradient in backward."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, ranks: int) -> Tensor:
        ctx.ranks = ranks
        return _along_sequence(x, 1, ranks)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Any:
        return _along_sequence(gradient, ctx.ranks, 1), None


class MainGradLinear(Function):
    """A product whose weight gradient is added to the accumulator inside the kernel (no tensor of its own).

    Megatron's sequence parallelism keeps the shard of the input and gathers it again in backward
    (megatron/core/tensor_parallel/layers.py, LinearWithGradAccumulationAndAsyncCommunication); with
    `placeholder`, backward returns an empty gradient of the weight's size, as that function does to keep
    autograd's hooks going. Transformer Engine keeps one such placeholder a shape for good instead.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, gathers: int, placeholder: bool) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.weight, ctx.gathers, ctx.placeholder = weight, gathers, placeholder
        return torch.matmul(_along_sequence(x, gathers, 1), weight.t())

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Any:
        x, weight = ctx.saved_tensors
        flat = gradient.reshape(-1, weight.shape[0])
        whole = _along_sequence(x, ctx.gathers, 1)
        dx = torch.mm(flat, weight).view(whole.shape)
        torch.mm(flat.t(), whole.reshape(-1, weight.shape[1]), out=ctx.weight.grad)
        del whole
        dx = _along_sequence(dx, 1, ctx.gathers)
        return dx, torch.empty_like(weight) if ctx.placeholder else None, None, None


class SwiGlu(Function):
    """silu(gate) * up of one tensor that holds both; keeps only its input."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        gate, up = x.chunk(2, dim=-1)
        result: Tensor = aten.silu(gate).mul_(up)
        return result

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Any:
        (x,) = ctx.saved_tensors
        gate, up = x.chunk(2, dim=-1)
        dx = torch.empty_like(x)
        d_gate, d_up = dx.chunk(2, dim=-1)
        aten.silu.out(gate, out=d_up)
        d_up.mul_(gradient)
        aten.silu_backward.grad_input(gradient, gate, grad_input=d_gate)
        d_gate.mul_(up)
        return dx


class Copied(Function):
    """Written to a new tensor, by rotary positions or for a kernel's layout; backward works in place."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:  # noqa: ARG004
        return x.clone(memory_format=torch.contiguous_format)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Any:  # noqa: ARG004
        return gradient


class SharedKeyAttention(Function):
    """Causal flash attention of B x heads x S x size, where groups of heads may share keys and values.

    They are read in place; their gradients are of every head's own before they are summed up
    (flash_attn, csrc/flash_attn/flash_api.cpp, mha_bwd, dk_expanded).
    """

    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        context, log_sums = aten._scaled_dot_product_flash_attention_for_cpu(
            query, _for_all_heads(key, query), _for_all_heads(value, query), 0.0, True
        )
        ctx.save_for_backward(query, key, value, context, log_sums)
        result: Tensor = context
        return result

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Any:
        query, key, value, context, log_sums = ctx.saved_tensors
        keys, values = _for_all_heads(key, query), _for_all_heads(value, query)
        d_query, d_key, d_value = aten._scaled_dot_product_flash_attention_for_cpu_backward(
            gradient, query, keys, values, context, log_sums, 0.0, True
        )
        return d_query, _summed(d_key, key.shape[1]), _summed(d_value, key.shape[1])


def _for_all_heads(x: Tensor, query: Tensor) -> Tensor:
    """A view with as many heads as the query (contents do not matter: the first head's, again and again)."""
    return x if x.shape[1] == query.shape[1] else x[:, :1].expand(-1, query.shape[1], -1, -1)


def _summed(gradient: Tensor, groups: int) -> Tensor:
    batch, heads, length, size = gradient.shape
    if heads == groups:
        return gradient
    return gradient.reshape(batch, groups, heads // groups, length, size).sum(2)


class FusedCrossEntropy(Function):
    """Cross entropy of logits split over ranks: one fp32 copy of them, in which all happens, is kept; the
    gradient is cast to the logits' dtype (megatron/core/fusions/fused_cross_entropy.py)."""

    @staticmethod
    def forward(ctx: Any, logits: Tensor, targets: Tensor) -> Tensor:
        ctx.dtype = logits.dtype
        softmax = logits.float()
        softmax.sub_(softmax.amax(-1, keepdim=True)).exp_()
        ctx.save_for_backward(softmax, targets)
        return _normalised(softmax)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Any:
        softmax, _ = ctx.saved_tensors
        softmax.mul_(gradient.unsqueeze(-1))
        return softmax.to(ctx.dtype), None


class CrossEntropy2021(Function):
    """Cross entropy of fp32 logits split over ranks: their exponentials are a second fp32 tensor, which is
    kept (megatron/mpu/cross_entropy.py, v2.4)."""

    @staticmethod
    def forward(ctx: Any, logits: Tensor, targets: Tensor) -> Tensor:
        logits.sub_(logits.amax(-1, keepdim=True))
        softmax = logits.exp()
        ctx.save_for_backward(softmax, targets)
        return _normalised(softmax)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Any:
        softmax, _ = ctx.saved_tensors
        return softmax.mul_(gradient.unsqueeze(-1)), None


def _normalised(exponentials: Tensor) -> Tensor:
    """Log-sums of exponentials, which become shares in place."""
    total = exponentials.sum(-1, keepdim=True)
    exponentials.div_(total)
    return total.log().squeeze(-1)


def _along_sequence(x: Tensor, grow: int, shrink: int) -> Tensor:
    """An empty tensor for the result of a collective that multiplies or divides the sequence."""
    if grow == shrink == 1:
        return x
    return x.new_empty((x.shape[0], x.shape[1] * grow // shrink, *x.shape[2:]))
