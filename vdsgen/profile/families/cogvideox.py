"""CogVideoX."""

from __future__ import annotations

import torch
from torch import Tensor

from vdsgen.model.families.cogvideox import COGVIDEOX as CUT
from vdsgen.profile.families.family import Config, TracedFamily, latents
from vdsgen.profile.points import Point


def _sample(config: Config, point: Point) -> tuple[Tensor, ...]:
    return (
        latents(config, point, config["patch_size_t"] or 1),
        torch.empty(point.batch),
        torch.empty(point.batch, point.geometry.text_tokens, config["text_embed_dim"]),
    )


COGVIDEOX = TracedFamily(
    CUT,
    sample=_sample,
    monomials=("1", "TS", "L", "B", "BTS", "BL", "BTTSS", "BTSL", "BLL", "Bj"),
    states=2,
)
