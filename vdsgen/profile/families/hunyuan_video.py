"""HunyuanVideo."""

from __future__ import annotations

import torch
from torch import Tensor

from vdsgen.model.families.hunyuan_video import HUNYUAN_VIDEO as CUT
from vdsgen.profile.families.family import Config, TracedFamily, latents
from vdsgen.profile.points import Point


def _sample(config: Config, point: Point) -> tuple[Tensor, ...]:
    """Latents, timesteps, text, its mask, the pooled text and, where the model is told it, the guidance's
    scale."""
    length = point.geometry.text_tokens
    return (
        latents(config, point, config.get("patch_size_t", 1)),
        torch.empty(point.batch),
        torch.empty(point.batch, length, config["text_embed_dim"]),
        torch.ones(point.batch, length, dtype=torch.int64),
        torch.empty(point.batch, config["pooled_projection_dim"]),
        *([torch.empty(point.batch)] if config.get("guidance_embeds", True) else ()),
    )


HUNYUAN_VIDEO = TracedFamily(
    CUT,
    sample=_sample,
    monomials=("1", "TS", "L", "B", "BTS", "BL", "BTTSS", "BTSL", "BLL", "Bj", "Bl"),
    states=2,
)
