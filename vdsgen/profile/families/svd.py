"""Stable Video Diffusion. S counts what one pixel of the coarsest level covers: all levels' sizes are whole
multiples of it."""

from __future__ import annotations

import torch
from torch import Tensor

from vdsgen.model.families.svd import SVD as CUT
from vdsgen.profile.families.family import Config, TracedFamily, latents
from vdsgen.profile.points import Point

TIME_IDS = 3
"""Frames a second, motion and noise of the image."""
WHOLE_TILES = ((8, 16), (16, 24), (8, 48), (32, 20), (16, 56))
"""Attention kernels round sequences up to whole tiles, of every level another number of them. Traced where
none is rounded; at other sizes only coarse levels' temporaries are a little larger."""


def _sample(config: Config, point: Point) -> tuple[Tensor, ...]:
    return (
        latents(config, point),
        torch.empty(point.batch),
        torch.empty(point.batch, 1, config["cross_attention_dim"]),
        torch.empty(point.batch, TIME_IDS),
    )


SVD = TracedFamily(
    CUT,
    sample=_sample,
    monomials=("1", "T", "S", "B", "BT", "BS", "BTS", "BTSS", "BTTS", "BtS", "Bt"),
    grids=WHOLE_TILES,
)
