"""Attention over patches, over frames, and to the text.

Legend: B micro-batch, T latent frames, S patches a frame, L text tokens, D hidden size, H heads,
K head size (D = H * K), N sequences side by side, M length of each.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vdsgen.model.layers.initial import Linear
from vdsgen.model.layers.positions import Rotation, rotated


class SelfAttention(nn.Module):
    """Attention within N independent sequences of length M; queries and keys are normalised per head.

    LayerNorm on queries and keys keeps attention logits bounded in half precision (ViT-22B,
    arXiv 2302.05442, section 2). No mask: torch then takes its flash kernel on every device.
    """

    def __init__(self, hidden_size: int, heads: int, generator: torch.Generator) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = Linear(hidden_size, 3 * hidden_size, generator)
        self.query_norm = nn.LayerNorm(hidden_size // heads)
        self.key_norm = nn.LayerNorm(hidden_size // heads)
        self.out = Linear(hidden_size, hidden_size, generator)

    def forward(self, x_NMD: Tensor, rotation: Rotation | None) -> Tensor:
        sequences, length, width = x_NMD.shape
        qkv: Tensor = self.qkv(x_NMD)
        q_NHMK, k_NHMK, v_NHMK = (
            qkv.view(sequences, length, 3, self.heads, width // self.heads).permute(2, 0, 3, 1, 4).unbind(0)
        )
        q_NHMK, k_NHMK = self.query_norm(q_NHMK), self.key_norm(k_NHMK)
        if rotation is not None:
            q_NHMK, k_NHMK = rotated(q_NHMK, rotation), rotated(k_NHMK, rotation)
        mixed_NHMK = F.scaled_dot_product_attention(q_NHMK, k_NHMK, v_NHMK)
        out: Tensor = self.out(mixed_NHMK.transpose(1, 2).reshape(sequences, length, width))
        return out


class CrossAttention(nn.Module):
    """From every patch of every frame to the text. Its projection starts at zero, so that a fresh block
    is the identity although this sublayer has no gate."""

    def __init__(self, hidden_size: int, heads: int, generator: torch.Generator) -> None:
        super().__init__()
        self.heads = heads
        self.norm = nn.LayerNorm(hidden_size)
        self.query = Linear(hidden_size, hidden_size, generator)
        self.key_value = Linear(hidden_size, 2 * hidden_size, generator)
        self.query_norm = nn.LayerNorm(hidden_size // heads)
        self.key_norm = nn.LayerNorm(hidden_size // heads)
        self.out = Linear(hidden_size, hidden_size, generator, zero=True)

    def forward(self, hidden_BTSD: Tensor, context_BLD: Tensor) -> Tensor:
        batch, frames, patches, width = hidden_BTSD.shape
        head_size = width // self.heads
        q: Tensor = self.query(self.norm(hidden_BTSD))
        q_BHMK = q.view(batch, frames * patches, self.heads, head_size).transpose(1, 2)
        key_value: Tensor = self.key_value(context_BLD)
        k_BHLK, v_BHLK = key_value.view(batch, -1, 2, self.heads, head_size).permute(2, 0, 3, 1, 4).unbind(0)
        mixed_BHMK = F.scaled_dot_product_attention(self.query_norm(q_BHMK), self.key_norm(k_BHLK), v_BHLK)
        out: Tensor = self.out(mixed_BHMK.transpose(1, 2).reshape(batch, frames, patches, width))
        return out
