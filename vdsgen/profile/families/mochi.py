"""Mochi. Its attention runs sample by sample, on the text that each one's mask leaves: all of it here.

How many operators run depends on the number of samples, and backward of each one's slice writes zeros for
all: a micro-batch of several is no polynomial of one, and no faster. Micro-batches of one are traced.
"""

from __future__ import annotations

import torch
from torch import Tensor

from vdsgen.model.families.mochi import MOCHI as CUT
from vdsgen.profile.families.family import Config, TracedFamily, latents
from vdsgen.profile.points import Point


def _sample(config: Config, point: Point) -> tuple[Tensor, ...]:
    """Latents, timesteps, text and its mask."""
    length = point.geometry.text_tokens
    return (
        latents(config, point),
        torch.empty(point.batch),
        torch.empty(point.batch, length, config["text_embed_dim"]),
        torch.ones(point.batch, length, dtype=torch.int64),
    )


MOCHI = TracedFamily(
    CUT,
    sample=_sample,
    # Of one sample: a constant and what each sample adds to it cannot be told apart, nor need they be.
    monomials=("1", "BTS", "BL", "BTTSS", "BTSL", "BLL", "Bj"),
    states=2,
    batches=(1,),
)
