"""A decoder's layers in the three styles of `Decoder`, for tracing: one tensor-parallel rank's share.

Legend: B micro-batch, S sequence, H hidden, t tensor-parallel ranks. Each layer takes a tuple of tensors, the
hidden state first, as vdsgen/profile/trace.py runs it. With sequence parallelism the hidden state between
layers is this rank's S / t positions.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from vdsgen.published.decoder import DROPOUT, Decoder
from vdsgen.published.fused import (
    Copied,
    CrossEntropy2021,
    FusedCrossEntropy,
    Gathered,
    MainGradLinear,
    Scattered,
    SharedKeyAttention,
    SwiGlu,
    run,
)

aten = torch.ops.aten


def build(model: Decoder, kind: str, selective: bool = False) -> nn.Module:
    """A layer of `kind` (embed, block, final) on the current device, in the default dtype.

    `selective` recomputes the attention's scores in backward (arXiv 2205.05198, section 5), which only
    attention without a flash kernel keeps.
    """
    if kind == "embed":
        return Embedding(model)
    if kind == "final":
        return Head(model)
    if model.style == "megatron-2021":
        return Block2021(model, selective)
    return CoreBlock(model) if model.style == "megatron-core" else TorchBlock(model)


class Embedding(nn.Module):
    """Words, and learned positions and dropout where the model has them."""

    def __init__(self, model: Decoder) -> None:
        super().__init__()
        self.model = model
        self.words = nn.Embedding(_share(model.vocab, model), model.hidden)
        self.positions = None if model.gated else nn.Embedding(model.positions, model.hidden)

    def forward(self, inputs: tuple[Tensor, ...]) -> Tensor:
        tokens = inputs[0]
        hidden: Tensor = self.words(tokens)
        if self.positions is not None:
            hidden = hidden + self.positions.weight[: tokens.shape[1]]
        if self.model.sequence_parallel:
            hidden = run(Scattered, hidden, self.model.tensor_parallel)
        return _dropout(hidden) if self.model.style == "megatron-2021" else hidden


class Head(nn.Module):
    """The last norm, the output projection and the loss."""

    def __init__(self, model: Decoder) -> None:
        super().__init__()
        self.model = model
        self.norm = _norm(model)
        self.weight = nn.Parameter(torch.empty(_share(model.vocab, model), model.hidden))

    def forward(self, inputs: tuple[Tensor, ...]) -> Tensor:
        model, (hidden, targets) = self.model, inputs
        hidden = self.norm(hidden)
        gathers = model.tensor_parallel if model.sequence_parallel else 1
        loss: Tensor
        if model.style == "megatron-core":
            logits = run(MainGradLinear, hidden, self.weight, gathers, True)
        else:
            logits = F.linear(run(Gathered, hidden, gathers) if gathers > 1 else hidden, self.weight)
        if model.style == "megatron-core" and model.fused_loss:
            loss = run(FusedCrossEntropy, logits, targets)
        elif model.style == "torch":
            loss = F.cross_entropy(logits.flatten(0, 1).float(), targets.flatten())
        else:
            loss = run(CrossEntropy2021, logits.float(), targets)
        return loss


class Block2021(nn.Module):
    """Megatron-LM's ParallelTransformerLayer of 2021 (megatron/model/transformer.py, v2.4)."""

    def __init__(self, model: Decoder, selective: bool) -> None:
        super().__init__()
        self.model, self.selective = model, selective
        width, ffn = _share(model.hidden, model), _share(model.ffn, model)
        self.attention_norm, self.mlp_norm = _norm(model), _norm(model)
        self.qkv = nn.Linear(model.hidden, 3 * width)
        self.projection = nn.Linear(width, model.hidden)
        self.up = nn.Linear(model.hidden, ffn)
        self.down = nn.Linear(ffn, model.hidden)

    def forward(self, inputs: tuple[Tensor, ...]) -> Tensor:
        hidden = inputs[0]
        context = self._attention(self._entered(self.attention_norm(hidden)))
        hidden = hidden + _dropout(self._left(self.projection(context)))
        inner = F.gelu(self.up(self._entered(self.mlp_norm(hidden))))
        return hidden + _dropout(self._left(self.down(inner)))

    def _entered(self, hidden: Tensor) -> Tensor:
        model = self.model
        return run(Gathered, hidden, model.tensor_parallel) if model.sequence_parallel else hidden

    def _left(self, hidden: Tensor) -> Tensor:
        model = self.model
        return run(Scattered, hidden, model.tensor_parallel) if model.sequence_parallel else hidden

    def _attention(self, hidden: Tensor) -> Tensor:
        batch, length, _ = hidden.shape
        heads, size = _share(self.model.heads, self.model), self.model.head_size
        # As sequence x batch x heads, so that batched products read views.
        qkv = self.qkv(hidden).view(length, batch * heads, 3 * size)
        query, key, value = qkv.chunk(3, dim=-1)
        if self.selective:
            context = checkpoint(_core_attention, query, key, value, use_reentrant=False)
        else:
            context = _core_attention(query, key, value)
        return _flattened(context.transpose(0, 1), batch, length)


def _core_attention(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Scores, softmax, dropout and the product with values; (S, B x heads, size) to (B x heads, S, size)."""
    scores = torch.bmm(query.transpose(0, 1), key.permute(1, 2, 0))
    weights = _dropout(torch.softmax(scores, dim=-1))
    del scores
    return torch.bmm(weights, value.transpose(0, 1))


class CoreBlock(nn.Module):
    """Megatron core's TransformerLayer of Transformer Engine modules."""

    def __init__(self, model: Decoder) -> None:
        super().__init__()
        self.model = model
        heads, groups = _share(model.heads, model), _share(model.kv_heads, model)
        ffn = _share(model.ffn, model)
        self.attention_norm, self.mlp_norm = _norm(model), _norm(model)
        self.qkv = _matrix((heads + 2 * groups) * model.head_size, model.hidden)
        self.projection = _matrix(model.hidden, heads * model.head_size)
        self.up = _matrix((2 if model.gated else 1) * ffn, model.hidden)
        self.down = _matrix(model.hidden, ffn)

    def forward(self, inputs: tuple[Tensor, ...]) -> Tensor:
        hidden = inputs[0]
        qkv = self._entered(self.attention_norm(hidden), self.qkv)
        context = self._attention(qkv)
        del qkv
        hidden = hidden + self._left(context, self.projection)
        inner = self._entered(self.mlp_norm(hidden), self.up)
        inner = run(SwiGlu, inner) if self.model.gated else F.gelu(inner)
        return hidden + self._left(inner, self.down)

    def _entered(self, hidden: Tensor, weight: Tensor) -> Tensor:
        gathers = self.model.tensor_parallel if self.model.sequence_parallel else 1
        result: Tensor = run(MainGradLinear, hidden, weight, gathers, False)
        return result

    def _left(self, hidden: Tensor, weight: Tensor) -> Tensor:
        result: Tensor = run(MainGradLinear, hidden, weight, 1, False)
        if self.model.sequence_parallel:
            result = run(Scattered, result, self.model.tensor_parallel)
        return result

    def _attention(self, qkv: Tensor) -> Tensor:
        heads, groups = _share(self.model.heads, self.model), _share(self.model.kv_heads, self.model)
        size = self.model.head_size
        query, key, value = torch.split(qkv, [heads * size, groups * size, groups * size], dim=-1)
        # Each becomes a tensor of its own for the kernel, and the projection's output is free.
        return attend(run(Copied, query), run(Copied, key), run(Copied, value), size)


class TorchBlock(nn.Module):
    """Plain torch modules: a Llama block as torchtitan writes it, or an MPT block."""

    def __init__(self, model: Decoder) -> None:
        super().__init__()
        self.model = model
        kv = model.kv_heads * model.head_size
        self.attention_norm, self.mlp_norm = _norm(model), _norm(model)
        self.query = nn.Linear(model.hidden, model.hidden, bias=False)
        self.key = nn.Linear(model.hidden, kv, bias=False)
        self.value = nn.Linear(model.hidden, kv, bias=False)
        self.projection = nn.Linear(model.hidden, model.hidden, bias=False)
        self.up = nn.Linear(model.hidden, model.ffn, bias=False)
        self.gate = nn.Linear(model.hidden, model.ffn, bias=False) if model.gated else None
        self.down = nn.Linear(model.ffn, model.hidden, bias=False)

    def forward(self, inputs: tuple[Tensor, ...]) -> Tensor:
        hidden = inputs[0]
        normed = self.attention_norm(hidden)
        query, key, value = self.query(normed), self.key(normed), self.value(normed)
        if self.model.gated:
            query, key = run(Copied, query), run(Copied, key)
        hidden = hidden + self.projection(attend(query, key, value, self.model.head_size))
        normed = self.mlp_norm(hidden)
        if self.gate is not None:
            inner = F.silu(self.gate(normed)) * self.up(normed)
        else:
            inner = F.gelu(self.up(normed))
        result: Tensor = hidden + self.down(inner)
        return result


def attend(query: Tensor, key: Tensor, value: Tensor, size: int) -> Tensor:
    """Causal flash attention of B x S x (heads x size)."""
    batch, length, _ = query.shape
    by_head = (x.view(batch, length, -1, size).transpose(1, 2) for x in (query, key, value))
    context: Tensor = run(SharedKeyAttention, *by_head)
    return _flattened(context.transpose(1, 2), batch, length)


def _flattened(context: Tensor, batch: int, length: int) -> Tensor:
    """Heads side by side: a copy where they do not lie so."""
    return context.reshape(batch, length, -1)


def _norm(model: Decoder) -> nn.Module:
    """RMSNorm is run as LayerNorm without a bias: one kernel that keeps its input and fp32 statistics too."""
    return nn.LayerNorm(model.hidden, bias=not model.gated)


def _dropout(x: Tensor) -> Tensor:
    """CUDA's kernel, which keeps a mask of one byte an element; the CPU's keeps one of the input's dtype."""
    return torch.native_dropout(x, DROPOUT, True)[0]


def _matrix(rows: int, columns: int) -> nn.Parameter:
    return nn.Parameter(torch.empty(rows, columns))


def _share(size: int, model: Decoder) -> int:
    """One rank's part of a size that tensor parallelism divides."""
    return max(1, size // model.tensor_parallel)
