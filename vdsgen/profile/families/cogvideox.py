"""CogVideoX (diffusers, cogvideox_transformer_3d.py, `CogVideoXTransformer3DModel.forward`)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from vdsgen.profile.families.family import Config, Family, unpatchified
from vdsgen.profile.points import Point


class _Embed(nn.Module):
    """Of a table of fixed positions the size alone: diffusers keeps it, or makes it anew at other sizes."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.time_proj, self.time_embedding = model.time_proj, model.time_embedding
        self.patch_embed, self.embedding_dropout = model.patch_embed, model.embedding_dropout
        self.fixed_positions = not model.config.use_rotary_positional_embeddings
        self.patch_embed.use_positional_embeddings = False
        self.patch_embed.register_buffer("pos_embedding", None)

    def forward(self, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        latents, timestep, text, *tables = inputs
        time = self.time_embedding(self.time_proj(timestep).to(latents.dtype))
        hidden = self.patch_embed(text, latents)
        if self.fixed_positions:
            tables = [hidden.new_empty(1, *hidden.shape[1:], dtype=torch.float32)]
            hidden = hidden + tables[0].to(hidden.dtype)
        hidden = self.embedding_dropout(hidden)
        length = text.shape[1]
        return hidden[:, length:], hidden[:, :length], time, *tables


class _Block(nn.Module):
    def __init__(self, model: Any) -> None:
        super().__init__()
        self.block = model.transformer_blocks[0]
        self.rotates = bool(model.config.use_rotary_positional_embeddings)

    def forward(self, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        hidden, text, time, *tables = inputs
        return *self.block(hidden, text, time, tuple(tables) if self.rotates else None), time, *tables


class _Final(nn.Module):
    def __init__(self, model: Any) -> None:
        super().__init__()
        self.norm_final, self.norm_out, self.proj_out = model.norm_final, model.norm_out, model.proj_out
        self.patch_size = model.config.patch_size

    def forward(self, inputs: tuple[Tensor, ...]) -> Tensor:
        hidden, _, time, *_ = inputs
        prediction = self.proj_out(self.norm_out(self.norm_final(hidden), temb=time))
        return unpatchified(prediction, self.patch_size)


def _layers(model: Any) -> dict[str, nn.Module]:
    return {"embed": _Embed(model), "block": _Block(model), "final": _Final(model)}


def _sample(config: Config, point: Point) -> tuple[Tensor, ...]:
    """With rotary positions, their tables come from outside the model."""
    where = point.geometry
    frames = where.frames * (config["patch_size_t"] or 1)
    tokens, width = where.frames * where.patches, config["attention_head_dim"]
    rotary = config["use_rotary_positional_embeddings"]
    return (
        torch.empty(point.batch, frames, config["in_channels"], where.latent_height, where.latent_width),
        torch.empty(point.batch),
        torch.empty(point.batch, where.text_tokens, config["text_embed_dim"]),
        *((torch.empty(tokens, width), torch.empty(tokens, width)) if rotary else ()),
    )


COGVIDEOX = Family(
    class_name="CogVideoXTransformer3DModel",
    blocks={"block": "num_layers"},
    layers=_layers,
    sample=_sample,
    monomials=("1", "TS", "L", "B", "BTS", "BL", "BTTSS", "BTSL", "BLL", "Bj"),
    states=2,
)
