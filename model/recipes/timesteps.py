"""Which share of noise a training sample gets.

Drawn by quantile: u uniform in (0, 1), then the inverse of the distribution's cumulative function. A loss at
fixed quantiles of the same distribution is the same code with u given.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from vdsgen.spec.recipes.recipe import TimestepSampling

_SMALLEST_QUANTILE = 2.0**-25


def draw_quantile(generator: torch.Generator) -> Tensor:
    """() float64 in (0, 1)."""
    return torch.rand((), generator=generator, dtype=torch.float64)


def share_at(quantile: Tensor, sampling: TimestepSampling, shift: float) -> Tensor:
    """t at a quantile of the shifted distribution between `low` and `high`: () float64 in [0, 1]."""
    first = _quantile_of(sampling.low, sampling, shift)
    last = _quantile_of(sampling.high, sampling, shift)
    within = first + (last - first) * quantile.double()
    t = _shifted(_inverse(within.clamp(_SMALLEST_QUANTILE, 1 - _SMALLEST_QUANTILE), sampling), shift)
    return t.clamp(sampling.low, sampling.high)


def _inverse(quantile: Tensor, sampling: TimestepSampling) -> Tensor:
    """t before the shift."""
    if sampling.kind == "uniform":
        return quantile
    if sampling.kind == "logit_normal":
        return torch.sigmoid(sampling.mean + sampling.std * torch.special.ndtri(quantile))
    # arXiv 2403.03206, section 3.1, which falls as u rises; quantiles of t rise with t.
    return _mode(1 - quantile, sampling.mode_scale)


def _mode(u: Tensor, scale: float) -> Tensor:
    return 1 - u - scale * (torch.cos(math.pi / 2 * u) ** 2 - 1 + u)


def _quantile_of(t: float, sampling: TimestepSampling, shift: float) -> float:
    """The share of samples below t."""
    if t <= 0:
        return 0.0
    if t >= 1:
        return 1.0
    t = t / (shift - (shift - 1) * t)  # before the shift
    if sampling.kind == "uniform":
        return t
    if sampling.kind == "logit_normal":
        normal = (math.log(t / (1 - t)) - sampling.mean) / sampling.std
        return float(torch.special.ndtr(torch.tensor(normal, dtype=torch.float64)))
    low, high = 0.0, 1.0
    for _ in range(60):
        middle = (low + high) / 2
        below = float(_inverse(torch.tensor(middle, dtype=torch.float64), sampling)) < t
        low, high = (middle, high) if below else (low, middle)
    return low


def _shifted(t: Tensor, shift: float) -> Tensor:
    return shift * t / (1 + (shift - 1) * t)
