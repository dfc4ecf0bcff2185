"""Wan 2.1, text or image to video (diffusers, transformer_wan.py, `WanTransformer3DModel.forward`)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from vdsgen.profile.families.family import Config, Family, unpatchified
from vdsgen.profile.points import Point

IMAGE_TOKENS = 257
"""Of one image from CLIP ViT-H/14 at 224 pixels: 16 x 16 patches and the class token."""


class _Embed(nn.Module):
    def __init__(self, model: Any) -> None:
        super().__init__()
        self.patch_embedding, self.condition_embedder = model.patch_embedding, model.condition_embedder
        self.head_size = model.config.attention_head_dim

    def forward(self, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        latents, timestep, text, *image = inputs
        hidden = self.patch_embedding(latents).flatten(2).transpose(1, 2).contiguous()
        time, rows, text, image_context = self.condition_embedder(timestep, text, *image or (None,))
        if image:
            text = torch.concat([image_context, text], dim=1)
        # Of rotary tables the size alone: what making them moves depends on rows and columns apart.
        table = (1, hidden.shape[1], 1, self.head_size)
        rotary = latents.new_empty(table, dtype=torch.float32), latents.new_empty(table, dtype=torch.float32)
        return hidden, text, rows.unflatten(1, (6, -1)), time, *rotary


class _Block(nn.Module):
    def __init__(self, model: Any) -> None:
        super().__init__()
        self.block = model.blocks[0]

    def forward(self, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        hidden, text, rows, time, *rotary = inputs
        return self.block(hidden, text, rows, tuple(rotary)), text, rows, time, *rotary


class _Final(nn.Module):
    def __init__(self, model: Any) -> None:
        super().__init__()
        self.norm_out, self.proj_out = model.norm_out, model.proj_out
        self.patch_size = model.config.patch_size[-1]
        self.scale_shift_table = model.scale_shift_table

    def forward(self, inputs: tuple[Tensor, ...]) -> Tensor:
        hidden, _, _, time, *_ = inputs
        shift, scale = (self.scale_shift_table + time.unsqueeze(1)).chunk(2, dim=1)
        hidden = (self.norm_out(hidden.float()) * (1 + scale) + shift).type_as(hidden)
        return unpatchified(self.proj_out(hidden), self.patch_size)


def _layers(model: Any) -> dict[str, nn.Module]:
    return {"embed": _Embed(model), "block": _Block(model), "final": _Final(model)}


def _sample(config: Config, point: Point) -> tuple[Tensor, ...]:
    where = point.geometry
    frames = where.frames * config["patch_size"][0]
    return (
        torch.empty(point.batch, config["in_channels"], frames, where.latent_height, where.latent_width),
        torch.empty(point.batch),
        torch.empty(point.batch, where.text_tokens, config["text_dim"]),
        *([torch.empty(point.batch, IMAGE_TOKENS, config["image_dim"])] if config.get("image_dim") else ()),
    )


WAN = Family(
    class_name="WanTransformer3DModel",
    blocks={"block": "num_layers"},
    layers=_layers,
    sample=_sample,
    monomials=("1", "TS", "B", "BTS", "BTTSS", "BL", "BTSL", "Bn"),
)
