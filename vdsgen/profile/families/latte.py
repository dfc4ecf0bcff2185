"""Latte."""

from __future__ import annotations

import torch
from torch import Tensor

from vdsgen.model.families.latte import LATTE as CUT
from vdsgen.profile.families.family import Config, TracedFamily, latents
from vdsgen.profile.points import Point


def _sample(config: Config, point: Point) -> tuple[Tensor, ...]:
    return (
        latents(config, point),
        torch.empty(point.batch),
        torch.empty(point.batch, point.geometry.text_tokens, config["caption_channels"]),
    )


LATTE = TracedFamily(
    CUT,
    sample=_sample,
    monomials=(
        *("1", "T", "S", "TS", "B", "BT", "BS", "BL", "BTL", "BTS", "BTSS", "BTTS", "BTSL"),
        *("BTs", "BtS"),
    ),
)
