"""HunyuanVideo (diffusers, transformer_hunyuan_video.py, `HunyuanVideoTransformer3DModel.forward`)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from vdsgen.profile.families.family import Config, Family, unpatchified
from vdsgen.profile.points import Point


class _Embed(nn.Module):
    """With the two blocks that refine the text; of rotary tables the size alone."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.time_text_embed, self.x_embedder = model.time_text_embed, model.x_embedder
        self.context_embedder = model.context_embedder
        self.head_size = model.config.attention_head_dim

    def forward(self, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        latents, timestep, text, text_mask, pooled, guidance = inputs
        time, _ = self.time_text_embed(timestep, pooled, guidance)
        hidden = self.x_embedder(latents)
        text = self.context_embedder(text, timestep, text_mask)
        tokens = hidden.shape[1]
        length = tokens + text.shape[1]
        mask = torch.ones(hidden.shape[0], length, device=hidden.device, dtype=torch.bool)
        used = tokens + text_mask.sum(dim=1, dtype=torch.int)
        indices = torch.arange(length, device=hidden.device).unsqueeze(0)
        mask = mask.masked_fill(indices >= used.unsqueeze(1), False).unsqueeze(1).unsqueeze(1)
        table = (tokens, self.head_size)
        rotary = hidden.new_empty(table, dtype=torch.float32), hidden.new_empty(table, dtype=torch.float32)
        return hidden, text, time, mask, *rotary


class _Block(nn.Module):
    def __init__(self, block: nn.Module) -> None:
        super().__init__()
        self.block = block

    def forward(self, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        hidden, text, time, mask, *rotary = inputs
        return *self.block(hidden, text, time, mask, tuple(rotary), None, 0), time, mask, *rotary


class _Final(nn.Module):
    def __init__(self, model: Any) -> None:
        super().__init__()
        self.norm_out, self.proj_out = model.norm_out, model.proj_out
        self.patch_size = model.config.patch_size

    def forward(self, inputs: tuple[Tensor, ...]) -> Tensor:
        hidden, _, time, *_ = inputs
        return unpatchified(self.proj_out(self.norm_out(hidden, time)), self.patch_size)


def _layers(model: Any) -> dict[str, nn.Module]:
    return {
        "embed": _Embed(model),
        "double": _Block(model.transformer_blocks[0]),
        "single": _Block(model.single_transformer_blocks[0]),
        "final": _Final(model),
    }


def _sample(config: Config, point: Point) -> tuple[Tensor, ...]:
    """Latents, timesteps, text, its mask, the pooled text and the guidance's scale."""
    where = point.geometry
    frames = where.frames * config["patch_size_t"]
    return (
        torch.empty(point.batch, config["in_channels"], frames, where.latent_height, where.latent_width),
        torch.empty(point.batch),
        torch.empty(point.batch, where.text_tokens, config["text_embed_dim"]),
        torch.ones(point.batch, where.text_tokens, dtype=torch.int64),
        torch.empty(point.batch, config["pooled_projection_dim"]),
        torch.empty(point.batch),
    )


HUNYUAN_VIDEO = Family(
    class_name="HunyuanVideoTransformer3DModel",
    blocks={"double": "num_layers", "single": "num_single_layers"},
    layers=_layers,
    sample=_sample,
    monomials=("1", "TS", "L", "B", "BTS", "BL", "BTTSS", "BTSL", "BLL", "Bj", "Bl"),
    states=2,
)
