"""Objectives: exact predictions give the clip back, and timesteps follow the laws they name."""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import pairwise
from typing import Literal

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F

from tests.model.sizes import geometry, tiny
from vdsgen.model.objective import (
    SHIFT_BASE_TOKENS,
    alpha_sigma,
    clean_and_noise,
    denoised,
    diffusion_loss,
    exact_prediction,
    sample_timestep,
    sampling_times,
    shift_of,
    shifted,
    training_pair,
)
from vdsgen.spec.architecture import Geometry
from vdsgen.spec.training import Diffusion

WHERE = geometry(tiny(condition="none"))
OBJECTIVES = [
    Diffusion(prediction="flow"),
    Diffusion(prediction="epsilon", noise_schedule="cosine"),
    Diffusion(prediction="epsilon", noise_schedule="linear"),
    Diffusion(prediction="v", noise_schedule="cosine"),
    Diffusion(prediction="v", noise_schedule="linear"),
]


def names(diffusion: Diffusion) -> str:
    return f"{diffusion.prediction}-{diffusion.noise_schedule}"


@pytest.mark.parametrize("diffusion", OBJECTIVES, ids=names)
@given(t=st.floats(0, 1), seed=st.integers(0, 2**31))
@settings(max_examples=60, deadline=None)
def test_the_exact_prediction_gives_clip_and_noise_back(diffusion: Diffusion, t: float, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    clean, noise = torch.randn(2, 3, 2, 4, 4, generator=generator)
    timestep = torch.tensor(t)
    alpha, sigma = alpha_sigma(timestep, diffusion)
    noised = alpha * clean + sigma * noise
    prediction = exact_prediction(clean, noise, timestep, diffusion)
    found_clean, found_noise = clean_and_noise(prediction, noised, timestep, diffusion)
    # Rounding of the noised clip is amplified by 1 / alpha where the noise is predicted.
    amplified = 1 / float(alpha) if diffusion.prediction == "epsilon" else 1.0
    assert torch.allclose(found_clean, clean, atol=2e-6 * amplified + 1e-6)
    assert torch.allclose(found_noise, noise, atol=1e-5)


@pytest.mark.parametrize("diffusion", OBJECTIVES, ids=names)
def test_paths_go_from_the_clip_to_noise_without_a_step_back(diffusion: Diffusion) -> None:
    alpha, sigma = alpha_sigma(torch.linspace(0, 1, 1001), diffusion)
    assert (alpha.diff() < 0).all()
    assert (sigma.diff() > 0).all()
    assert alpha[0] > 0.999
    assert sigma[-1] > 0.999
    if diffusion.prediction == "flow":
        assert torch.allclose(alpha + sigma, torch.ones(1001))
    else:
        assert torch.allclose(alpha**2 + sigma**2, torch.ones(1001), atol=1e-6)
        assert alpha[-1] > 0, "a predicted noise must say something about the clip at any time"


def test_flow_predicts_the_derivative_of_its_path() -> None:
    flow = Diffusion(prediction="flow")
    clean, noise = torch.randn(2, 3, 2, 4, 4)
    t, step = torch.tensor(0.3), 1e-3
    places = [a * clean + s * noise for a, s in (alpha_sigma(u, flow) for u in (t, t + step))]
    assert torch.allclose((places[1] - places[0]) / step, exact_prediction(clean, noise, t, flow), atol=1e-2)


@pytest.mark.parametrize("diffusion", OBJECTIVES, ids=names)
def test_training_pairs_are_noised_as_they_say(diffusion: Diffusion) -> None:
    latents = torch.randn(3, WHERE.frames, 4, 6, dtype=torch.float64)
    pair = training_pair(latents, torch.Generator().manual_seed(3), diffusion, WHERE)
    assert pair.noised.shape == pair.target.shape == latents.shape
    assert pair.noised.dtype == pair.target.dtype == pair.timestep.dtype == torch.float32
    assert pair.timestep.shape == ()
    clean, noise = clean_and_noise(pair.target, pair.noised, pair.timestep, diffusion)
    assert torch.allclose(clean, latents.float(), atol=1e-4)
    assert abs(float(noise.mean())) < 0.5
    assert 0.7 < float(noise.std()) < 1.3


def test_training_pairs_are_functions_of_their_generator() -> None:
    latents = torch.randn(3, WHERE.frames, 4, 6)
    first, again, other = (
        training_pair(latents, torch.Generator().manual_seed(seed), Diffusion(), WHERE) for seed in (1, 1, 2)
    )
    assert torch.equal(first.noised, again.noised)
    assert torch.equal(first.target, again.target)
    assert not torch.equal(first.noised, other.noised)


def kolmogorov_smirnov(samples: Tensor, law: Callable[[Tensor], Tensor]) -> float:
    """Largest distance between the samples' distribution and `law`, times the root of their number."""
    ordered = samples.double().sort().values
    count = len(ordered)
    expected = law(ordered)
    above = torch.arange(1, count + 1, dtype=torch.float64) / count - expected
    below = expected - torch.arange(count, dtype=torch.float64) / count
    return float(torch.maximum(above, below).max()) * math.sqrt(count)


def law_of(diffusion: Diffusion, shift: float) -> Callable[[Tensor], Tensor]:
    """The distribution function of shifted timesteps: undo the shift, then ask the unshifted law."""

    def law(t: Tensor) -> Tensor:
        plain = t / (shift + (1 - shift) * t)
        if diffusion.timestep_sampling == "uniform":
            return plain
        z = (torch.logit(plain) - diffusion.logit_mean) / diffusion.logit_std
        return 0.5 * (1 + torch.erf(z / math.sqrt(2)))

    return law


SAMPLINGS: list[tuple[Literal["uniform", "logit_normal"], float, float, float]] = [
    ("uniform", 0.0, 1.0, 1.0),
    ("logit_normal", 0.0, 1.0, 1.0),
    ("logit_normal", -0.5, 1.4, 1.0),
    ("logit_normal", 0.0, 1.0, 3.0),
    ("uniform", 0.0, 1.0, 2.0),
]


@pytest.mark.parametrize(("sampling", "mean", "std", "shift"), SAMPLINGS)
def test_timesteps_follow_their_law(
    sampling: Literal["uniform", "logit_normal"], mean: float, std: float, shift: float
) -> None:
    diffusion = Diffusion(timestep_sampling=sampling, logit_mean=mean, logit_std=std, shift=shift)
    generator = torch.Generator().manual_seed(11)
    samples = torch.stack([sample_timestep(generator, diffusion, WHERE) for _ in range(4000)])
    assert samples.min() >= 0
    assert samples.max() <= 1
    # 1.95 is exceeded by chance once in a thousand times (Kolmogorov); the seed is fixed.
    assert kolmogorov_smirnov(samples, law_of(diffusion, shift)) < 1.95
    unshifted = law_of(diffusion, shift * 1.5)
    assert kolmogorov_smirnov(samples, unshifted) > 1.95, "the test could not tell another shift"


def test_resolution_shift_is_the_root_of_the_tokens() -> None:
    base = Geometry(frames=1, patches=256, text_tokens=0, latent_height=32, latent_width=32)
    clip = Geometry(frames=16, patches=256, text_tokens=0, latent_height=32, latent_width=32)
    diffusion = Diffusion(shift="resolution")
    assert SHIFT_BASE_TOKENS == 256
    assert shift_of(diffusion, base) == 1.0
    assert shift_of(diffusion, clip) == 4.0
    assert shift_of(Diffusion(shift=3.0), clip) == 3.0


@given(t=st.floats(0, 1), shift=st.floats(0.1, 10))
def test_shifts_keep_the_ends_and_undo_each_other(t: float, shift: float) -> None:
    there = shifted(torch.tensor(t, dtype=torch.float64), shift)
    assert 0 <= float(there) <= 1 + 1e-12
    assert math.isclose(float(shifted(there, 1 / shift)), t, abs_tol=1e-9)
    assert float(shifted(torch.tensor(1.0), shift)) == pytest.approx(1.0)


@pytest.mark.parametrize("diffusion", OBJECTIVES, ids=names)
def test_sampling_with_a_perfect_network_arrives_at_the_clip(diffusion: Diffusion) -> None:
    clean, noise = torch.randn(2, 3, 2, 4, 4, generator=torch.Generator().manual_seed(5))
    times = sampling_times(12, diffusion, WHERE)
    alpha, sigma = alpha_sigma(times[0], diffusion)
    x = alpha * clean + sigma * noise
    for now, after in pairwise(times):
        x = denoised(exact_prediction(clean, noise, now, diffusion), x, now, after, diffusion)
    assert torch.allclose(x, clean, atol=5e-3)


def test_sampling_times_fall_from_one_to_zero_and_dwell_where_training_does() -> None:
    times = sampling_times(10, Diffusion(shift=3.0), WHERE)
    assert times.shape == (11,)
    assert times[0] == 1
    assert times[-1] == 0
    assert (times.diff() < 0).all()
    assert torch.allclose(times, shifted(torch.linspace(1, 0, 11), 3.0))
    assert times[5] > 0.7


def test_the_loss_is_an_fp32_mean_whatever_the_predictions_dtype() -> None:
    prediction = torch.full((4, 70_000), 0.1, dtype=torch.bfloat16)
    loss = diffusion_loss(prediction, torch.zeros(4, 70_000))
    assert loss.dtype == torch.float32
    assert float(loss) == pytest.approx(float(prediction[0, 0].float()) ** 2, rel=1e-4)


def test_a_loss_keeps_no_more_than_its_number() -> None:
    """A pipeline keeps the loss of every micro-batch; torch's own keeps as much as the prediction."""
    prediction, target = torch.randn(2, 64, requires_grad=True), torch.randn(2, 64)
    assert F.mse_loss(prediction, target).untyped_storage().nbytes() == 4 * 2 * 64
    loss = diffusion_loss(prediction, target)
    assert loss.untyped_storage().nbytes() == 4
    assert loss == F.mse_loss(prediction, target)
