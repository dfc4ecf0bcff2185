"""Discrete noise schedules: the share of the clip and of the noise at each of 1,000 steps."""

from __future__ import annotations

import functools

import torch
from torch import Tensor

from vdsgen.spec.recipes.recipe import ScheduledNoise

STEPS = 1000


@functools.lru_cache(maxsize=8)
def alphas(schedule: ScheduledNoise) -> Tensor:
    """(STEPS,) float64: sqrt(alpha_bar) as diffusers computes it, `scheduling_ddim_cogvideox.py:207`."""
    start, end = schedule.beta_start, schedule.beta_end
    if schedule.betas == "scaled_linear":
        betas = torch.linspace(start**0.5, end**0.5, STEPS, dtype=torch.float64) ** 2
    else:
        betas = torch.linspace(start, end, STEPS, dtype=torch.float64)
    bar = torch.cumprod(1 - betas, dim=0)
    # SNR = bar / (1 - bar), divided by the shift.
    bar = bar / (schedule.snr_shift + (1 - schedule.snr_shift) * bar)
    alpha = bar.sqrt()
    if schedule.zero_terminal_snr:
        first, last = alpha[0].clone(), alpha[-1].clone()
        alpha = (alpha - last) * (first / (first - last))
    return alpha


def sigmas(schedule: ScheduledNoise) -> Tensor:
    """(STEPS,) float64: sqrt(1 - alpha^2)."""
    return (1 - alphas(schedule) ** 2).sqrt()
