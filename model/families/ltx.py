"""LTX-Video (diffusers 0.42.1, transformer_ltx.py, `LTXVideoTransformer3DModel`).

Legend: B micro-batch, T frames, I rows and J columns of tokens, N = T I J, L text tokens, D hidden size.
Timesteps are (B,), or (B, T) where each frame has its own (image to video: a frame without noise is given),
which diffusers takes a token at a time.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from vdsgen.errors import VdsgenError
from vdsgen.model.families.family import (
    Constants,
    Cut,
    Family,
    Unregistered,
    a_token_each,
    at_most,
    unpatchified,
)

FRAMES_A_SECOND = 25
TEMPORAL_FACTOR, SPATIAL_FACTOR = 8, 32
"""Positions are in seconds and pixels of the clip: what the pipeline assumes of it, and what the autoencoder
makes of it (pipeline_ltx.py, `rope_interpolation_scale` and `frame_rate`)."""


class _Embed(nn.Module):
    """(noised, timestep, text, text_mask) -> (hidden_BTIJD, context_BLD, rows, time, text_mask)"""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.proj_in, self.time_embed = model.proj_in, model.time_embed
        self.caption_projection = model.caption_projection

    def forward(self, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        noised, timestep, text, text_mask = inputs
        hidden = self.proj_in(at_most(noised, self).permute(0, 2, 3, 4, 1))
        batch = hidden.shape[0]
        rows, time = self.time_embed(timestep.flatten(), batch_size=batch, hidden_dtype=hidden.dtype)
        context = self.caption_projection(at_most(text, self))
        times = timestep.shape[1] if timestep.ndim == 2 else 1
        return hidden, context, rows.view(batch, times, -1), time.view(batch, times, -1), text_mask


class _Block(nn.Module):
    """(hidden, context, rows, time, text_mask) -> the same, with a new hidden state."""

    def __init__(self, block: nn.Module, tables: Constants) -> None:
        super().__init__()
        self.block, self.tables = block, tables

    def forward(self, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        hidden_BTIJD, context, rows, time, text_mask = inputs
        rotary = self.tables(*hidden_BTIJD.shape[1:4], like=hidden_BTIJD)
        bias = ((1 - text_mask.to(hidden_BTIJD.dtype)) * -10000.0).unsqueeze(1)
        tokens = hidden_BTIJD.flatten(1, 3)
        hidden = self.block(tokens, context, _of_tokens(rows, tokens), rotary, bias)
        return hidden.view_as(hidden_BTIJD), context, rows, time, text_mask


class _Final(nn.Module):
    """(hidden, context, rows, time, text_mask) -> prediction (B, C, T, H, W) float32."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.norm_out, self.proj_out = model.norm_out, model.proj_out
        self.scale_shift_table = model.scale_shift_table

    def forward(self, inputs: tuple[Tensor, ...]) -> Tensor:
        hidden_BTIJD, _, _, time, _ = inputs
        tokens = hidden_BTIJD.flatten(1, 3)
        values = self.scale_shift_table[None, None] + _of_tokens(time, tokens)[:, :, None]
        shift, scale = values[:, :, 0], values[:, :, 1]
        tokens = self.norm_out(tokens) * (1 + scale) + shift
        prediction = self.proj_out(tokens).view(*hidden_BTIJD.shape[:4], -1)
        return unpatchified(prediction, (1, 1, 1)).float()


def _of_tokens(rows: Tensor, tokens: Tensor) -> Tensor:
    """(B, 1, ...) as it is; of frames: of tokens."""
    return rows if rows.shape[1] == 1 else a_token_each(rows, tokens.shape[1])


def _cut(model: Any) -> list[Cut]:
    if (model.config.patch_size, model.config.patch_size_t) != (1, 1):
        raise VdsgenError("LTXVideoTransformer3DModel is cut into layers with patch_size and patch_size_t 1")
    rope = Unregistered(model.rope)

    def tables_of(*grid: int) -> tuple[Tensor, ...]:
        scale = (TEMPORAL_FACTOR / FRAMES_A_SECOND, SPATIAL_FACTOR, SPATIAL_FACTOR)
        tables: tuple[Tensor, ...] = rope.module(torch.empty(1), *grid, rope_interpolation_scale=scale)
        return tables

    tables = Constants(tables_of)
    blocks = [Cut("block", _Block(block, tables)) for block in model.transformer_blocks]
    return [Cut("embed", _Embed(model)), *blocks, Cut("final", _Final(model))]


LTX = Family(class_name="LTXVideoTransformer3DModel", cut=_cut, depths=("num_layers",))
