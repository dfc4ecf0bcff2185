"""CogVideoX 2 B, 5 B and 1.5 (diffusers 0.42.1, cogvideox_transformer_3d.py, `CogVideoXTransformer3DModel`).

Legend: B micro-batch, T frames, I rows and J columns of patches, N = T I J tokens, L text tokens, D hidden
size.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from vdsgen.model.families.family import Constants, Cut, Family, Unregistered, at_most, unpatchified

IMAGE_STRENGTH = 2.0
"""What CogVideoX 1.5 I2V is told beside the timestep (pipeline_cogvideox_image2video.py, `ofs_emb`)."""


class _Embed(nn.Module):
    """(noised, timestep, text) -> (hidden_BTIJD, text_BLD, time_BE)

    Fixed positions are added here. diffusers adds zeros to the text as well, of a length that never changes;
    here text has any length. Learned positions are a buffer of the patch embedding, which adds them.
    """

    def __init__(self, model: Any, positions: Constants | None) -> None:
        super().__init__()
        self.time_proj, self.time_embedding = model.time_proj, model.time_embedding
        self.ofs_proj, self.ofs_embedding = model.ofs_proj, model.ofs_embedding
        self.patch_embed, self.embedding_dropout = model.patch_embed, model.embedding_dropout
        self.positions = positions
        self.patch = _patch(model.config)

    def forward(self, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        noised, timestep, text = at_most(inputs[0], self), inputs[1], at_most(inputs[2], self)
        time = self.time_embedding(self.time_proj(timestep).to(noised.dtype))
        if self.ofs_embedding is not None:
            strength = self.ofs_proj(timestep.new_full((1,), IMAGE_STRENGTH))
            time = time + self.ofs_embedding(strength.to(noised.dtype))
        embedded = self.patch_embed(text, noised.transpose(1, 2))
        length = text.shape[1]
        grid = [size // edge for size, edge in zip(noised.shape[2:], self.patch, strict=True)]
        if self.positions is None:
            embedded = self.embedding_dropout(embedded)
            hidden, text = embedded[:, length:], embedded[:, :length]
        else:
            (table,) = self.positions(*grid, like=embedded)
            hidden = self.embedding_dropout(embedded[:, length:] + table.to(embedded.dtype))
            # Apart from what the positions were added to, which nobody needs any more.
            text = self.embedding_dropout(embedded[:, :length]).contiguous()
        return hidden.reshape(-1, *grid, hidden.shape[-1]), text, time


class _Block(nn.Module):
    """(hidden, text, time) -> the same, hidden state and text new."""

    def __init__(self, block: nn.Module, rotary: Constants | None) -> None:
        super().__init__()
        self.block, self.rotary = block, rotary

    def forward(self, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        hidden_BTIJD, text, time = inputs
        tables = None
        if self.rotary is not None:
            tables = self.rotary(*hidden_BTIJD.shape[1:4], like=hidden_BTIJD)
        hidden, text = self.block(hidden_BTIJD.flatten(1, 3), text, time, tables)
        return hidden.view_as(hidden_BTIJD), text, time


class _Final(nn.Module):
    """(hidden, text, time) -> prediction (B, C, T, H, W) float32."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.norm_final, self.norm_out, self.proj_out = model.norm_final, model.norm_out, model.proj_out
        self.patch = _patch(model.config)

    def forward(self, inputs: tuple[Tensor, ...]) -> Tensor:
        hidden_BTIJD, _, time = inputs
        tokens = self.norm_out(self.norm_final(hidden_BTIJD.flatten(1, 3)), temb=time)
        prediction = self.proj_out(tokens).view(*hidden_BTIJD.shape[:4], -1)
        return unpatchified(prediction, self.patch, channels_first=True).float()


def _patch(config: Any) -> tuple[int, int, int]:
    return (config.patch_size_t or 1, config.patch_size, config.patch_size)


def _rotary(config: Any) -> Constants | None:
    """As diffusers' pipelines make the tables (pipeline_cogvideox.py,
    `_prepare_rotary_positional_embeddings`): positions of a grid stretched over that of the first training,
    or with patches in time cut out of it."""
    if not config.use_rotary_positional_embeddings:
        return None
    base = (config.sample_height // config.patch_size, config.sample_width // config.patch_size)

    def tables_of(frames: int, rows: int, columns: int) -> tuple[Tensor, ...]:
        from diffusers.models.embeddings import get_3d_rotary_pos_embed

        width, grid = config.attention_head_dim, (rows, columns)
        crop = _crop(grid, base) if config.patch_size_t is None else None
        how = {} if crop else {"grid_type": "slice", "max_size": base}
        tables: tuple[Tensor, ...] = get_3d_rotary_pos_embed(width, crop, grid, frames, **how)
        return tables

    return Constants(tables_of)


def _crop(grid: tuple[int, int], base: tuple[int, int]) -> tuple[tuple[int, int], tuple[int, int]]:
    """First and last corner of a grid of this shape in the middle of the base grid, as large as fits
    (pipeline_cogvideox.py, `get_resize_crop_region_for_grid`)."""
    (rows, columns), (height, width) = grid, base
    if rows / columns > height / width:
        inner = (height, round(height / rows * columns))
    else:
        inner = (round(width / columns * rows), width)
    top, left = round((height - inner[0]) / 2.0), round((width - inner[1]) / 2.0)
    return (top, left), (top + inner[0], left + inner[1])


def _fixed_positions(model: Any) -> Constants | None:
    """Sines and cosines that the patch embedding would add; it has to leave that to the layer, since they
    are its buffer."""
    embed, config = model.patch_embed, model.config
    if not embed.use_positional_embeddings or embed.use_learned_positional_embeddings:
        return None
    embed.use_positional_embeddings = False
    del embed.pos_embedding
    held = Unregistered(embed)

    def table_of(frames: int, rows: int, columns: int) -> tuple[Tensor, ...]:
        pixels = (rows * config.patch_size, columns * config.patch_size)
        clip_frames = (frames - 1) * config.temporal_compression_ratio + 1
        table = held.module._get_positional_embeddings(
            *pixels, clip_frames, device=torch.get_default_device()
        )
        return (table[:, config.max_text_seq_length :],)

    return Constants(table_of)


def _cut(model: Any) -> list[Cut]:
    rotary = _rotary(model.config)
    blocks = [Cut("block", _Block(block, rotary)) for block in model.transformer_blocks]
    return [Cut("embed", _Embed(model, _fixed_positions(model))), *blocks, Cut("final", _Final(model))]


COGVIDEOX = Family(class_name="CogVideoXTransformer3DModel", cut=_cut, depths=("num_layers",))
