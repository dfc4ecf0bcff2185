"""LTX-Video."""

from __future__ import annotations

import torch
from torch import Tensor

from vdsgen.model.families.ltx import LTX as CUT
from vdsgen.profile.families.family import Config, TracedFamily, latents
from vdsgen.profile.points import Point


def _sample(config: Config, point: Point) -> tuple[Tensor, ...]:
    length = point.geometry.text_tokens
    return (
        latents(config, point),
        torch.empty(point.batch),
        torch.empty(point.batch, length, config["caption_channels"]),
        torch.zeros(point.batch, length, dtype=torch.int64),
    )


LTX = TracedFamily(CUT, sample=_sample, monomials=("1", "TS", "L", "B", "BTS", "BTTSS", "BL", "BTSL", "Bn"))
