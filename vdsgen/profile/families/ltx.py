"""LTX-Video (diffusers, transformer_ltx.py, `LTXVideoTransformer3DModel.forward`)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from vdsgen.profile.families.family import Config, Family
from vdsgen.profile.points import Point


class _Embed(nn.Module):
    def __init__(self, model: Any) -> None:
        super().__init__()
        self.rope, self.proj_in, self.time_embed = model.rope, model.proj_in, model.time_embed
        self.caption_projection = model.caption_projection

    def forward(self, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        latents, timestep, text, mask, coordinates = inputs
        rotary = self.rope(latents, video_coords=coordinates)
        mask = ((1 - mask.to(latents.dtype)) * -10000.0).unsqueeze(1)
        hidden = self.proj_in(latents)
        batch = hidden.shape[0]
        rows, time = self.time_embed(timestep.flatten(), batch_size=batch, hidden_dtype=hidden.dtype)
        rows, time = rows.view(batch, -1, rows.shape[-1]), time.view(batch, -1, time.shape[-1])
        text = self.caption_projection(text).view(batch, -1, hidden.shape[-1])
        return hidden, text, rows, time, mask, *rotary


class _Block(nn.Module):
    def __init__(self, model: Any) -> None:
        super().__init__()
        self.block = model.transformer_blocks[0]

    def forward(self, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        hidden, text, rows, time, mask, *rotary = inputs
        hidden = self.block(hidden, text, rows, tuple(rotary), mask)
        return hidden, text, rows, time, mask, *rotary


class _Final(nn.Module):
    def __init__(self, model: Any) -> None:
        super().__init__()
        self.norm_out, self.proj_out = model.norm_out, model.proj_out
        self.scale_shift_table = model.scale_shift_table

    def forward(self, inputs: tuple[Tensor, ...]) -> Tensor:
        hidden, _, _, time, *_ = inputs
        values = self.scale_shift_table[None, None] + time[:, :, None]
        shift, scale = values[:, :, 0], values[:, :, 1]
        prediction: Tensor = self.proj_out(self.norm_out(hidden) * (1 + scale) + shift)
        return prediction


def _layers(model: Any) -> dict[str, nn.Module]:
    return {"embed": _Embed(model), "block": _Block(model), "final": _Final(model)}


def _sample(config: Config, point: Point) -> tuple[Tensor, ...]:
    """Latents come as tokens, with the mask of the text and coordinates of each token."""
    tokens = point.geometry.frames * point.geometry.patches
    length = point.geometry.text_tokens
    return (
        torch.empty(point.batch, tokens, config["in_channels"]),
        torch.empty(point.batch),
        torch.empty(point.batch, length, config["caption_channels"]),
        torch.zeros(point.batch, length, dtype=torch.int64),
        torch.empty(point.batch, 3, tokens),
    )


LTX = Family(
    class_name="LTXVideoTransformer3DModel",
    blocks={"block": "num_layers"},
    layers=_layers,
    sample=_sample,
    monomials=("1", "L", "B", "BTS", "BTTSS", "BL", "BTSL", "Bn"),
)
