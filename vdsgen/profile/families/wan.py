"""Wan 2.1 and 2.2, text or image to video."""

from __future__ import annotations

import torch
from torch import Tensor

from vdsgen.model.families.wan import WAN as CUT
from vdsgen.profile.families.family import Config, TracedFamily, latents
from vdsgen.profile.points import Point

IMAGE_TOKENS = 257
"""Of one image from CLIP ViT-H/14 at 224 pixels: 16 x 16 patches and the class token."""


def _sample(config: Config, point: Point) -> tuple[Tensor, ...]:
    return (
        latents(config, point, config["patch_size"][0]),
        torch.empty(point.batch),
        torch.empty(point.batch, point.geometry.text_tokens, config["text_dim"]),
        *([torch.empty(point.batch, IMAGE_TOKENS, config["image_dim"])] if config.get("image_dim") else ()),
    )


WAN = TracedFamily(CUT, sample=_sample, monomials=("1", "TS", "B", "BTS", "BTTSS", "BL", "BTSL", "Bn"))
