"""Attention over patches, over frames, and to the text.

Legend: B micro-batch, T latent frames, S patches a frame, L text tokens, D hidden size, H heads,
K head size (D = H * K), N sequences side by side, M length of each.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vdsgen.model.layers.positions import Rotation, rotated
from vdsgen.model.layers.tensor_parallel import (
    ALONE,
    HeadNorm,
    TensorRanks,
    column_linear,
    row_linear,
)


class SelfAttention(nn.Module):
    """Attention within N independent sequences of length M; queries and keys are normalised per head.

    LayerNorm on queries and keys keeps attention logits bounded in half precision (ViT-22B,
    arXiv 2302.05442, section 2). Keys get no bias from it: without rotation softmax cancels it, and Adam
    would turn the rounding errors in its gradient into steps. Tensor-parallel ranks share the heads.
    """

    def __init__(
        self, hidden_size: int, heads: int, generator: torch.Generator, ranks: TensorRanks = ALONE
    ) -> None:
        super().__init__()
        self.heads = heads // ranks.size
        self.qkv = column_linear(hidden_size, 3 * hidden_size, generator, ranks, parts=3)
        self.query_norm = HeadNorm(hidden_size // heads, ranks)
        self.key_norm = HeadNorm(hidden_size // heads, ranks, bias=False)
        self.out = row_linear(hidden_size, hidden_size, generator, ranks)

    def forward(self, x_NMD: Tensor, rotation: Rotation | None) -> Tensor:
        sequences, length, _ = x_NMD.shape
        qkv: Tensor = self.qkv(x_NMD)
        q_NMHK, k_NMHK, v_NMHK = qkv.view(sequences, length, 3, self.heads, -1).unbind(2)
        q_NMHK, k_NMHK = self.query_norm(q_NMHK), self.key_norm(k_NMHK)
        if rotation is not None:
            q_NMHK, k_NMHK = rotated(q_NMHK, rotation), rotated(k_NMHK, rotation)
        out: Tensor = self.out(_attended(q_NMHK, k_NMHK, v_NMHK).view(sequences, length, -1))
        return out


class CrossAttention(nn.Module):
    """From every patch of every frame to the text. Its projection starts at zero, so that a fresh block
    is the identity although this sublayer has no gate. Tensor-parallel ranks share the heads."""

    def __init__(
        self, hidden_size: int, heads: int, generator: torch.Generator, ranks: TensorRanks = ALONE
    ) -> None:
        super().__init__()
        self.heads = heads // ranks.size
        self.norm = nn.LayerNorm(hidden_size)
        self.query = column_linear(hidden_size, hidden_size, generator, ranks)
        self.key_value = column_linear(hidden_size, 2 * hidden_size, generator, ranks, parts=2)
        self.query_norm = HeadNorm(hidden_size // heads, ranks)
        self.key_norm = HeadNorm(hidden_size // heads, ranks, bias=False)
        self.out = row_linear(hidden_size, hidden_size, generator, ranks, zero=True)

    def forward(self, hidden_BTSD: Tensor, context_BLD: Tensor) -> Tensor:
        batch, frames, patches, _ = hidden_BTSD.shape
        q: Tensor = self.query(self.norm(hidden_BTSD))
        key_value: Tensor = self.key_value(context_BLD)
        q_BMHK = q.view(batch, frames * patches, self.heads, -1)
        k_BLHK, v_BLHK = key_value.view(batch, context_BLD.shape[1], 2, self.heads, -1).unbind(2)
        mixed_BMHK = _attended(self.query_norm(q_BMHK), self.key_norm(k_BLHK), v_BLHK)
        out: Tensor = self.out(mixed_BMHK.view(batch, frames, patches, -1))
        return out


def _attended(q_NMHK: Tensor, k_NLHK: Tensor, v_NLHK: Tensor) -> Tensor:
    """softmax(q k^T / sqrt(K)) v for each head: (N, M, H, K), contiguous.

    The transposes are views, and no mask is given: torch then takes its flash kernel on every device,
    and that kernel keeps positions before heads in memory.
    """
    mixed_NHMK = F.scaled_dot_product_attention(
        q_NMHK.transpose(1, 2), k_NLHK.transpose(1, 2), v_NLHK.transpose(1, 2)
    )
    return mixed_NHMK.transpose(1, 2).contiguous()
