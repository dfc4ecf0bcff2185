"""Noised clips and targets beside diffusers' schedulers and the authors' losses."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from tests.model.recipes.samples import recipe_named
from vdsgen.model.recipes.loss import recipe_loss
from vdsgen.model.recipes.noising import edm_scalings, edm_sigma, edm_weight, noise_clip, step_index
from vdsgen.model.recipes.schedule import alphas
from vdsgen.spec.recipes.recipe import ScheduledNoise

CLEAN = torch.randn(4, 3, 4, 6, generator=torch.Generator().manual_seed(1))
NOISE = torch.randn(CLEAN.shape, generator=torch.Generator().manual_seed(2))
SHARES = (0.001, 0.3, 0.65, 0.9995)


def cogvideox_scheduler(snr_shift: float) -> Any:
    from diffusers import CogVideoXDDIMScheduler

    return CogVideoXDDIMScheduler(
        snr_shift_scale=snr_shift,
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        clip_sample=False,
        prediction_type="v_prediction",
        rescale_betas_zero_snr=True,
        set_alpha_to_one=True,
        timestep_spacing="trailing",
    )


def latte_scheduler() -> Any:
    from diffusers import DDIMScheduler

    return DDIMScheduler(
        beta_start=0.0001, beta_end=0.02, beta_schedule="linear", clip_sample=False, set_alpha_to_one=True
    )


@pytest.mark.parametrize("name", ["wan", "ltx-video", "hunyuan-video"])
def test_flows_are_noised_as_diffusers_does(name: str) -> None:
    from diffusers import FlowMatchEulerDiscreteScheduler

    recipe, scheduler = recipe_named(name), FlowMatchEulerDiscreteScheduler()
    for index in (0, 350, 999):
        timestep = scheduler.timesteps[index]
        pair = noise_clip(CLEAN, NOISE, timestep.double() / 1000, recipe.objective)
        assert float(pair.timestep) == pytest.approx(float(timestep))
        expected = scheduler.scale_noise(CLEAN[None], timestep[None], NOISE[None])[0]
        assert torch.allclose(pair.noised, expected, atol=1e-6)
        assert torch.equal(pair.target, NOISE - CLEAN)
        assert float(pair.weight) == 1


def test_mochi_runs_backwards() -> None:
    """t of 0.3 is 700 to the module, and what it says leads from noise to the clip."""
    pair = noise_clip(CLEAN, NOISE, torch.tensor(0.3, dtype=torch.float64), recipe_named("mochi").objective)
    assert float(pair.timestep) == pytest.approx(700)
    assert torch.allclose(pair.noised + 0.3 * pair.target, CLEAN, atol=1e-6)


@pytest.mark.parametrize(("name", "shift"), [("cogvideox", 1.0), ("cogvideox-2b", 3.0)])
def test_cogvideox_schedules_are_diffusers_own(name: str, shift: float) -> None:
    objective, scheduler = recipe_named(name).objective, cogvideox_scheduler(shift)
    assert isinstance(objective, ScheduledNoise)
    assert torch.allclose(alphas(objective) ** 2, scheduler.alphas_cumprod, atol=1e-12)
    assert float(alphas(objective)[-1]) == 0
    for share in SHARES:
        pair = noise_clip(CLEAN, NOISE, torch.tensor(share, dtype=torch.float64), objective)
        timesteps = pair.timestep.long()[None]
        assert torch.allclose(
            pair.noised, scheduler.add_noise(CLEAN[None], NOISE[None], timesteps)[0], atol=1e-5
        )
        assert torch.allclose(
            pair.target, scheduler.get_velocity(CLEAN[None], NOISE[None], timesteps)[0], atol=1e-5
        )


def test_cogvideox_loss_is_its_authors() -> None:
    """Their error of the clip, weighted by 1 / (1 - alpha^2), is the error of v."""
    scheduler, objective = cogvideox_scheduler(1.0), recipe_named("cogvideox").objective
    said = torch.randn(CLEAN.shape, generator=torch.Generator().manual_seed(3))
    for share in SHARES:
        pair = noise_clip(CLEAN, NOISE, torch.tensor(share, dtype=torch.float64), objective)
        timesteps = pair.timestep.long()[None]
        clip = scheduler.get_velocity(said[None], pair.noised[None], timesteps)
        weight = 1 / (1 - scheduler.alphas_cumprod[timesteps])
        theirs = (weight.view(-1, 1, 1, 1, 1) * (clip - CLEAN) ** 2).mean()
        ours = recipe_loss(said[None], (pair.target[None], pair.weight[None]))
        assert float(ours) == pytest.approx(float(theirs), rel=1e-3)


def test_latte_predicts_the_noise_of_diffusers_schedule() -> None:
    scheduler, objective = latte_scheduler(), recipe_named("latte").objective
    for share in SHARES:
        pair = noise_clip(CLEAN, NOISE, torch.tensor(share, dtype=torch.float64), objective)
        expected = scheduler.add_noise(CLEAN[None], NOISE[None], pair.timestep.long()[None])[0]
        assert torch.allclose(pair.noised, expected, atol=1e-5)
        assert torch.equal(pair.target, NOISE)


def test_every_step_of_a_schedule_is_drawn() -> None:
    shares = (torch.arange(1000, dtype=torch.float64) + 0.5) / 1000
    assert torch.equal(step_index(shares), torch.arange(1000))
    assert int(step_index(torch.tensor(1.0))) == 999


def svd_loss(said: Tensor, share: Tensor) -> Tensor:
    """As SVD_Xtend writes it: the error of the denoised clip with EDM's weight."""
    sigma = edm_sigma(share).float()
    noised = CLEAN + sigma * NOISE
    c_out = -sigma / (sigma**2 + 1) ** 0.5
    c_skip = 1 / (sigma**2 + 1)
    denoised = said * c_out + c_skip * noised
    return ((1 + sigma**2) * sigma**-2.0 * (denoised - CLEAN) ** 2).mean()


def test_svd_loss_is_edm_weighted() -> None:
    objective = recipe_named("svd").objective
    said = torch.randn(CLEAN.shape, generator=torch.Generator().manual_seed(3))
    for share in (0.2, 0.5, 0.9, 0.99):
        t = torch.tensor(share, dtype=torch.float64)
        pair = noise_clip(CLEAN, NOISE, t, objective)
        sigma = float(edm_sigma(t))
        assert float(pair.weight) == pytest.approx(1, rel=1e-5)
        assert float(pair.timestep) == pytest.approx(0.25 * torch.tensor(sigma).log().item())
        assert torch.allclose(pair.noised, (CLEAN + sigma * NOISE) / (sigma**2 + 1) ** 0.5, atol=1e-5)
        assert torch.allclose(pair.target, (NOISE - sigma * CLEAN) / (sigma**2 + 1) ** 0.5, atol=1e-3)
        ours = recipe_loss(said[None], (pair.target[None], pair.weight[None]))
        assert float(ours) == pytest.approx(float(svd_loss(said, t)), rel=1e-3)


def test_edm_scalings_keep_inputs_and_targets_of_unit_size() -> None:
    for sigma in (0.01, 1.0, 30.0):
        scalings = edm_scalings(torch.tensor(sigma))
        assert float(scalings.c_in**2 * (1 + sigma**2)) == pytest.approx(1)
        assert float(edm_weight(torch.tensor(sigma)) * scalings.c_out**2) == pytest.approx(1)


def test_learned_variance_channels_count_for_nothing() -> None:
    target = torch.ones(2, 4, 1, 2, 2)
    prediction = torch.cat([target + 2, torch.full_like(target, 1e6)], dim=1).requires_grad_()
    loss = recipe_loss(prediction, (target, torch.tensor([1.0, 3.0])))
    assert loss.item() == pytest.approx((4 + 12) / 2)
    loss.backward()  # type: ignore[no-untyped-call]
    assert prediction.grad is not None
    assert float(prediction.grad[:, 4:].abs().max()) == 0
    assert float(prediction.grad[:, :4].abs().min()) > 0
