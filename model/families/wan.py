"""Wan 2.1 and 2.2, text or image to video (diffusers 0.42.1, transformer_wan.py, `WanTransformer3DModel`).

Legend: B micro-batch, T frames, I rows and J columns of patches, N = T I J tokens, L text tokens (behind
those of the image), D hidden size. Timesteps are (B,), or (B, T) where each frame has its own (Wan 2.2 TI2V
conditions on a frame without noise), which diffusers takes a token at a time.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from vdsgen.model.families.family import (
    Constants,
    Cut,
    Family,
    Unregistered,
    a_token_each,
    at_most,
    unpatchified,
)


class _Embed(nn.Module):
    """(noised, timestep, text[, image]) -> (hidden_BTIJD, context_BLD, rows_B6D, time_BD); rows and time
    (B, T, ...) where frames have timesteps of their own."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.patch_embedding, self.condition_embedder = model.patch_embedding, model.condition_embedder

    def forward(self, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        noised, timestep, text, *image = (*inputs[:2], *(at_most(x, self) for x in inputs[2:]))
        hidden = self.patch_embedding(at_most(noised, self)).permute(0, 2, 3, 4, 1).contiguous()
        of_frames = timestep.shape[1] if timestep.ndim == 2 else None
        time, rows, context, image_context = self.condition_embedder(
            timestep.flatten(), text, *image or (None,), timestep_seq_len=of_frames
        )
        if image_context is not None:
            context = torch.cat([image_context, context], dim=1)
        return hidden, context, rows.unflatten(-1, (6, -1)), time


class _Block(nn.Module):
    """(hidden, context, rows, time) -> the same, with a new hidden state."""

    def __init__(self, block: nn.Module, tables: Constants) -> None:
        super().__init__()
        self.block, self.tables = block, tables

    def forward(self, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        hidden_BTIJD, context, rows, time = inputs
        tokens = hidden_BTIJD.flatten(1, 3)
        of_tokens = rows if rows.ndim == 3 else a_token_each(rows, tokens.shape[1])
        rotary = self.tables(*hidden_BTIJD.shape[1:4], like=tokens)
        hidden = self.block(tokens, context, of_tokens, rotary)
        return hidden.view_as(hidden_BTIJD), context, rows, time


class _Final(nn.Module):
    """(hidden, context, rows, time) -> prediction (B, C, T, H, W) float32."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.norm_out, self.proj_out = model.norm_out, model.proj_out
        self.scale_shift_table = model.scale_shift_table
        self.patch = tuple(model.config.patch_size)

    def forward(self, inputs: tuple[Tensor, ...]) -> Tensor:
        hidden_BTIJD, _, _, time = inputs
        tokens = hidden_BTIJD.flatten(1, 3)
        time_BND = time.unsqueeze(1) if time.ndim == 2 else a_token_each(time, tokens.shape[1])
        values = self.scale_shift_table.unsqueeze(0) + time_BND.unsqueeze(2)
        shift, scale = values.unbind(2)
        tokens = (self.norm_out(tokens.float()) * (1 + scale) + shift).type_as(tokens)
        prediction = self.proj_out(tokens).view(*hidden_BTIJD.shape[:4], -1)
        return unpatchified(prediction, self.patch).float()


def _cut(model: Any) -> list[Cut]:
    rope, patch = Unregistered(model.rope), model.config.patch_size

    def tables_of(*grid: int) -> tuple[Tensor, ...]:
        pixels = (count * edge for count, edge in zip(grid, patch, strict=True))
        tables: tuple[Tensor, ...] = rope.module(torch.empty(1, 1, *pixels, device="meta"))
        return tables

    tables = Constants(tables_of)
    blocks = [Cut("block", _Block(block, tables)) for block in model.blocks]
    return [Cut("embed", _Embed(model)), *blocks, Cut("final", _Final(model))]


WAN = Family(class_name="WanTransformer3DModel", cut=_cut, depths=("num_layers",))
