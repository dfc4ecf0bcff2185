"""Diffusion objectives: what a clip's latents are turned into for training, and how a prediction is read.

Time t is in [0, 1]: 0 is the clip, 1 is noise. A noised clip is alpha(t) * clean + sigma(t) * noise on one
of two kinds of path:

* rectified flow (arXiv 2209.03003): alpha = 1 - t, sigma = t; the network predicts the velocity
  d noised / dt = noise - clean;
* variance-preserving, alpha^2 + sigma^2 = 1, `cosine` or `linear`; the network predicts the noise
  (`epsilon`, arXiv 2006.11239) or v = alpha * noise - sigma * clean (`v`, arXiv 2202.00512, appendix D).

Everything here is fp32, and takes its randomness from the generator it is given.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from vdsgen.spec.architecture import Geometry
from vdsgen.spec.training import Diffusion

COSINE_LOG_SNR_LIMIT = 15.0
"""The cosine path is cut where log(alpha^2 / sigma^2) leaves [-15, 15] (arXiv 2301.11093, section 3.1):
without the cut alpha(1) is 0, and a predicted noise says nothing about the clip."""

LINEAR_BETA_MIN, LINEAR_BETA_MAX = 0.1, 20.0
"""DDPM's linear schedule in continuous time (arXiv 2011.13456, appendix C)."""

SHIFT_BASE_TOKENS = 256
"""Tokens at which `shift: resolution` is 1: one image of 256 x 256 at 8 x compression and patches of 2,
the resolution that arXiv 2403.03206 (section 5.3.2) takes as its base."""


@dataclass(frozen=True, slots=True)
class Pair:
    """One training sample: what the network sees, when, and what it should say."""

    noised: Tensor
    """(C, T, H, W) float32"""
    timestep: Tensor
    """() float32 in [0, 1]"""
    target: Tensor
    """(C, T, H, W) float32"""


def alpha_sigma(timestep: Tensor, diffusion: Diffusion) -> tuple[Tensor, Tensor]:
    """Share of the clip and of the noise at `timestep`, elementwise, in float32."""
    t = timestep.float()
    if diffusion.prediction == "flow":
        return 1 - t, t
    if diffusion.noise_schedule == "cosine":
        first = math.atan(math.exp(-COSINE_LOG_SNR_LIMIT / 2))
        angle = first + t * (math.pi / 2 - 2 * first)
        return angle.cos(), angle.sin()
    log_alpha = -0.25 * t**2 * (LINEAR_BETA_MAX - LINEAR_BETA_MIN) - 0.5 * t * LINEAR_BETA_MIN
    return log_alpha.exp(), (-torch.expm1(2 * log_alpha)).sqrt()


def shift_of(diffusion: Diffusion, geometry: Geometry) -> float:
    """The time shift: as given, or sqrt(tokens / SHIFT_BASE_TOKENS) for `resolution`."""
    if diffusion.shift == "resolution":
        return math.sqrt(geometry.frames * geometry.patches / SHIFT_BASE_TOKENS)
    return diffusion.shift


def shifted(timestep: Tensor, shift: float) -> Tensor:
    """t -> shift * t / (1 + (shift - 1) * t): the same noise level as t had in a clip with shift^2 times
    fewer tokens (arXiv 2403.03206, equation 23)."""
    return shift * timestep / (1 + (shift - 1) * timestep)


def sample_timestep(generator: torch.Generator, diffusion: Diffusion, geometry: Geometry) -> Tensor:
    """() float32 in [0, 1]: uniform, or sigmoid(N(logit_mean, logit_std^2)), then shifted."""
    if diffusion.timestep_sampling == "uniform":
        t = torch.rand((), generator=generator)
    else:
        t = torch.sigmoid(diffusion.logit_mean + diffusion.logit_std * torch.randn((), generator=generator))
    return shifted(t, shift_of(diffusion, geometry))


def timestep_at(quantile: float, diffusion: Diffusion, geometry: Geometry) -> Tensor:
    """() float32 in [0, 1]: the time that `quantile` of those that `sample_timestep` draws are below."""
    t = torch.tensor(quantile, dtype=torch.float64)
    if diffusion.timestep_sampling == "logit_normal":
        t = torch.sigmoid(diffusion.logit_mean + diffusion.logit_std * torch.special.ndtri(t))
    return shifted(t, shift_of(diffusion, geometry)).float()


def training_pair(
    latents: Tensor, generator: torch.Generator, diffusion: Diffusion, geometry: Geometry
) -> Pair:
    """Noises one clip's latents (C, T, H, W). Draws the timestep, then the noise, from `generator` (CPU)."""
    clean = latents.float()
    timestep = sample_timestep(generator, diffusion, geometry)
    noise = torch.randn(clean.shape, generator=generator)
    return pair_at(clean, noise, timestep, diffusion)


def pair_at(clean: Tensor, noise: Tensor, timestep: Tensor, diffusion: Diffusion) -> Pair:
    """One clip's latents and noise (C, T, H, W) float32, mixed as at `timestep` ()."""
    alpha, sigma = alpha_sigma(timestep, diffusion)
    target = exact_prediction(clean, noise, timestep, diffusion)
    return Pair(noised=alpha * clean + sigma * noise, timestep=timestep, target=target)


def exact_prediction(clean: Tensor, noise: Tensor, timestep: Tensor, diffusion: Diffusion) -> Tensor:
    """What a perfect network would say; `timestep` broadcasts against the clips."""
    if diffusion.prediction == "flow":
        return noise - clean
    if diffusion.prediction == "epsilon":
        return noise
    alpha, sigma = alpha_sigma(timestep, diffusion)
    return alpha * noise - sigma * clean


def clean_and_noise(
    prediction: Tensor, noised: Tensor, timestep: Tensor, diffusion: Diffusion
) -> tuple[Tensor, Tensor]:
    """The clip and the noise that a prediction implies; `timestep` broadcasts against the clips."""
    alpha, sigma = alpha_sigma(timestep, diffusion)
    if diffusion.prediction == "flow":
        return noised - sigma * prediction, noised + alpha * prediction
    if diffusion.prediction == "epsilon":
        return (noised - sigma * prediction) / alpha, prediction
    return alpha * noised - sigma * prediction, sigma * noised + alpha * prediction


def denoised(
    prediction: Tensor, noised: Tensor, timestep: Tensor, next_timestep: Tensor, diffusion: Diffusion
) -> Tensor:
    """One deterministic sampling step from `timestep` to the smaller `next_timestep`.

    alpha(next) * clean + sigma(next) * noise: Euler's step for rectified flow, DDIM (arXiv 2010.02502,
    equation 12 with eta 0) on the variance-preserving paths.
    """
    clean, noise = clean_and_noise(prediction, noised, timestep, diffusion)
    alpha, sigma = alpha_sigma(next_timestep, diffusion)
    return alpha * clean + sigma * noise


def sampling_times(steps: int, diffusion: Diffusion, geometry: Geometry) -> Tensor:
    """(steps + 1,) from 1 down to 0, shifted as in training."""
    return shifted(torch.linspace(1, 0, steps + 1), shift_of(diffusion, geometry))


def diffusion_loss(prediction: Tensor, target: Tensor) -> Tensor:
    """Mean squared error in fp32 over everything: micro-batches are of one size, so means of it compose.

    The clone is four bytes. torch's result is a scalar in a storage of the prediction's size, and a pipeline
    keeps the loss of each micro-batch until the next step (runtime/pipe/engine.py:765, DeepSpeed 0.19.8).
    """
    return F.mse_loss(prediction.float(), target.float()).clone()


def losses_of_samples(prediction: Tensor, target: Tensor) -> Tensor:
    """(B,) float32: of each sample, what `diffusion_loss` is the mean of."""
    return (prediction.float() - target.float()).square().flatten(1).mean(1)
