"""Latte (diffusers 0.42.1, latte_transformer_3d.py, `LatteTransformer3DModel`).

Legend: B micro-batch, T frames, I rows and J columns of patches, S = I J patches a frame, L text tokens, D
hidden size. Spatial blocks take frames side by side, temporal ones patches.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from vdsgen.model.families.family import Constants, Cut, Family, at_most, unpatchified


class _Embed(nn.Module):
    """(noised, timestep, text) -> (hidden_BTIJD, context_BLD, rows, time_BD), rows (B, 6 D)"""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.proj, self.positions = model.pos_embed.proj, _patch_positions(model.pos_embed)
        self.adaln_single, self.caption_projection = model.adaln_single, model.caption_projection

    def forward(self, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        noised, timestep, text = inputs
        noised = at_most(noised, self)
        batch, frames = noised.shape[0], noised.shape[2]
        patches = self.proj(noised.transpose(1, 2).flatten(0, 1))
        (table,) = self.positions(*patches.shape[2:], like=patches)
        hidden = (patches.permute(0, 2, 3, 1) + table).to(patches.dtype)
        rows, time = self.adaln_single(
            timestep,
            added_cond_kwargs={"resolution": None, "aspect_ratio": None},
            batch_size=batch,
            hidden_dtype=hidden.dtype,
        )
        context = self.caption_projection(at_most(text, self))
        return hidden.unflatten(0, (batch, frames)), context, rows, time


class _Spatial(nn.Module):
    """(hidden, context, rows, time) -> the same, with a new hidden state."""

    def __init__(self, block: nn.Module) -> None:
        super().__init__()
        self.block = block

    def forward(self, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        hidden_BTIJD, context, rows, time = inputs
        frames = hidden_BTIJD.shape[1]
        hidden = self.block(
            hidden_BTIJD.flatten(2, 3).flatten(0, 1),
            encoder_hidden_states=context.repeat_interleave(frames, dim=0),
            timestep=rows.repeat_interleave(frames, dim=0),
        )
        return hidden.view_as(hidden_BTIJD), context, rows, time


class _Temporal(nn.Module):
    """(hidden, context, rows, time) -> the same, with a new hidden state; the first one adds positions in
    time, where there is more than one frame."""

    def __init__(self, block: nn.Module, positions: Constants | None) -> None:
        super().__init__()
        self.block, self.positions = block, positions

    def forward(self, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        hidden_BTIJD, context, rows, time = inputs
        batch, frames, *grid, width = hidden_BTIJD.shape
        hidden_BSTD = hidden_BTIJD.flatten(2, 3).transpose(1, 2)
        patches = hidden_BSTD.shape[1]
        # Copies, as they are where B is not 1: what follows then costs the same whatever B is, and no kernel
        # has to copy what it gets, nor a pipeline what it sends.
        hidden = hidden_BSTD.contiguous().view(-1, frames, width)
        if self.positions is not None and frames > 1:
            (table,) = self.positions(frames, like=hidden)
            hidden = hidden + table.to(hidden.dtype)
        hidden = self.block(hidden, timestep=rows.repeat_interleave(patches, dim=0))
        hidden = hidden.view(batch, patches, frames, width).transpose(1, 2).contiguous()
        return hidden.view(batch, frames, *grid, width), context, rows, time


class _Final(nn.Module):
    """(hidden, context, rows, time) -> prediction (B, C, T, H, W) float32."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.norm_out, self.proj_out = model.norm_out, model.proj_out
        self.scale_shift_table = model.scale_shift_table
        self.patch = (1, model.config.patch_size, model.config.patch_size)

    def forward(self, inputs: tuple[Tensor, ...]) -> Tensor:
        hidden_BTIJD, _, _, time = inputs
        shift, scale = (self.scale_shift_table[None] + time[:, None])[:, :, None, None, None].unbind(1)
        hidden = self.norm_out(hidden_BTIJD) * (1 + scale) + shift
        return unpatchified(self.proj_out(hidden), self.patch).float()


def _patch_positions(embed: Any) -> Constants:
    """What the patch embedding would add, which keeps it as a buffer (embeddings.py, `PatchEmbed`)."""
    width, base, scale = embed.proj.out_channels, embed.base_size, embed.interpolation_scale

    def table_of(rows: int, columns: int) -> tuple[Tensor, ...]:
        from diffusers.models.embeddings import get_2d_sincos_pos_embed

        table = get_2d_sincos_pos_embed(
            width, (rows, columns), base_size=base, interpolation_scale=scale, output_type="pt"
        )
        return (table.float().view(rows, columns, width),)

    return Constants(table_of)


def _frame_positions(width: int) -> Constants:
    def table_of(frames: int) -> tuple[Tensor, ...]:
        from diffusers.models.embeddings import get_1d_sincos_pos_embed_from_grid

        frame = torch.arange(0, frames).unsqueeze(1)
        return (get_1d_sincos_pos_embed_from_grid(width, frame, output_type="pt").float(),)

    return Constants(table_of)


def _cut(model: Any) -> list[Cut]:
    first = _frame_positions(model.config.num_attention_heads * model.config.attention_head_dim)
    layers = [Cut("embed", _Embed(model))]
    pairs = zip(model.transformer_blocks, model.temporal_transformer_blocks, strict=True)
    for index, (spatial, temporal) in enumerate(pairs):
        layers.append(Cut("spatial", _Spatial(spatial)))
        kind, positions = ("temporal", None) if index else ("first_temporal", first)
        layers.append(Cut(kind, _Temporal(temporal, positions)))
    return [*layers, Cut("final", _Final(model))]


LATTE = Family(class_name="LatteTransformer3DModel", cut=_cut, depths=("num_layers",))
