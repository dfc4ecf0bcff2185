"""From a clip's latents, noise and the share of noise to what a module sees, when, and what it should say.

Every objective gives a target in the space of the module's own output, so that its loss is the plain squared
error times `weight`; where authors weigh the error of the denoised clip, the weight here is what is left of
theirs after the change of space (1 for CogVideoX and SVD, see vdsgen.spec.recipes).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from vdsgen.model.recipes.schedule import STEPS, alphas, sigmas
from vdsgen.spec.recipes.recipe import Objective, RectifiedFlow, ScheduledNoise

TIMESTEPS = 1000.0
"""What a timestep of 1 is called by modules of rectified flow."""


@dataclass(frozen=True, slots=True)
class Noised:
    """One clip, noised."""

    noised: Tensor
    """As the module takes it."""
    timestep: Tensor
    """() float32, in the unit that the module expects; (T,) where each frame has its own"""
    target: Tensor
    """What a perfect module would say; float32, of the latents' shape."""
    weight: Tensor
    """() float32: the sample's squared error counts so much; (T,): each frame's"""


def noise_clip(clean: Tensor, noise: Tensor, share: Tensor, objective: Objective) -> Noised:
    """`share` is t of vdsgen.model.recipes.timesteps, () in [0, 1]; for EDM sigma / (1 + sigma)."""
    if isinstance(objective, RectifiedFlow):
        return _flow(clean, noise, share, objective)
    if isinstance(objective, ScheduledNoise):
        return _scheduled(clean, noise, share, objective)
    return _edm(clean, noise, share)


def _flow(clean: Tensor, noise: Tensor, share: Tensor, objective: RectifiedFlow) -> Noised:
    t = share.float()
    velocity = noise - clean
    target = -velocity if objective.reversed_time else velocity
    return Noised((1 - t) * clean + t * noise, told(share, objective), target, torch.tensor(1.0))


def _scheduled(clean: Tensor, noise: Tensor, share: Tensor, objective: ScheduledNoise) -> Noised:
    index = step_index(share)
    alpha, sigma = alphas(objective)[index].float(), sigmas(objective)[index].float()
    target = noise if objective.prediction == "epsilon" else alpha * noise - sigma * clean
    return Noised(alpha * clean + sigma * noise, told(share, objective), target, torch.tensor(1.0))


def _edm(clean: Tensor, noise: Tensor, share: Tensor) -> Noised:
    sigma = edm_sigma(share).float()
    scalings = edm_scalings(sigma)
    noised = clean + sigma * noise
    target = (clean - scalings.c_skip * noised) / scalings.c_out
    weight = edm_weight(sigma) * scalings.c_out**2
    return Noised(scalings.c_in * noised, scalings.c_noise, target, weight)


def by_frame(pair: Noised, clean: Tensor, *, given: bool) -> Noised:
    """The same with timesteps and weights (T,) of frames; with a `given` first frame, it is not noised, at
    timestep 0, and what is said of it does not count."""
    frames = clean.shape[1]
    timestep, weight = pair.timestep.expand(frames).clone(), pair.weight.expand(frames).clone()
    if not given or frames == 1:
        return Noised(pair.noised, timestep, pair.target, weight)
    timestep[0], weight[0] = 0.0, 0.0
    noised = torch.cat([clean[:, :1], pair.noised[:, 1:]], dim=1)
    return Noised(noised, timestep, pair.target, weight * frames / (frames - 1))


def told(share: Tensor, objective: Objective) -> Tensor:
    """() float32: the timestep that stands for a share of noise."""
    if isinstance(objective, RectifiedFlow):
        return (TIMESTEPS * (1 - share if objective.reversed_time else share)).float()
    if isinstance(objective, ScheduledNoise):
        return step_index(share).float()
    return edm_scalings(edm_sigma(share)).c_noise.float()


def step_index(share: Tensor) -> Tensor:
    """() int64 in [0, STEPS)."""
    return (share * STEPS).long().clamp(0, STEPS - 1)


def edm_sigma(share: Tensor) -> Tensor:
    """Noise over clip, t / (1 - t)."""
    return share / (1 - share)


@dataclass(frozen=True, slots=True)
class EdmScalings:
    """denoised = c_skip * x + c_out * F(c_in * x, c_noise) (arXiv 2206.00364, equation 7)."""

    c_skip: Tensor
    c_out: Tensor
    c_in: Tensor
    c_noise: Tensor


def edm_scalings(sigma: Tensor) -> EdmScalings:
    """Those for F = v; sigma_data is 1 (`scheduling_euler_discrete.py:775`)."""
    root = (sigma**2 + 1).sqrt()
    return EdmScalings(c_skip=1 / root**2, c_out=-sigma / root, c_in=1 / root, c_noise=0.25 * sigma.log())


def edm_weight(sigma: Tensor) -> Tensor:
    """Of the squared error of the denoised clip: (sigma^2 + 1) / sigma^2 (arXiv 2206.00364, table 1)."""
    return (1 + sigma**2) / sigma**2
