"""Whole sampling trajectories beside diffusers' schedulers, on a toy module that is not linear."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from tests.model.recipes.samples import FRAMES, HEIGHT, WIDTH, cached_sample, empty_caption, recipe_named
from tests.model.recipes.test_noising import cogvideox_scheduler, latte_scheduler
from vdsgen.model.recipes.noising import noise_clip
from vdsgen.model.recipes.sample import (
    guidance_of,
    noise_frames,
    sample_latents,
    sampling_conditions,
)
from vdsgen.model.recipes.solver import flow_times, solver_steps
from vdsgen.spec.recipes import ALL_RECIPES
from vdsgen.spec.recipes.recipe import Recipe, RectifiedFlow


def noise_for(recipe: Recipe, clips: int = 2) -> Tensor:
    shape = (clips, recipe.autoencoder.channels, FRAMES, HEIGHT, WIDTH)
    return torch.randn(shape, generator=torch.Generator().manual_seed(5))


def toy(x: Tensor, timestep: Tensor) -> Tensor:
    """Some module: bounded, not linear, and not the same at all times."""
    when = timestep.float().view(-1, 1, 1, 1, 1) / 500
    return torch.tanh(0.8 * x + when.cos()) - 0.2 * x.roll(1, dims=-1)


def ours(recipe: Recipe, noise: Tensor, steps: int) -> Tensor:
    return sample_latents(
        recipe, lambda inputs: toy(inputs[0], inputs[1]), noise, None, steps=steps, guidance_scale=1.0
    )


def theirs(scheduler: Any, noise: Tensor, *, scaled: bool = False) -> Tensor:
    x = noise * scheduler.init_noise_sigma if scaled or hasattr(scheduler, "init_noise_sigma") else noise
    for timestep in scheduler.timesteps:
        seen = scheduler.scale_model_input(x, timestep) if hasattr(scheduler, "scale_model_input") else x
        x = scheduler.step(toy(seen, timestep.expand(len(x))), timestep, x, return_dict=False)[0]
    return x


def flow_scheduler(recipe: Recipe, steps: int) -> Any:
    """As the family's pipeline sets it up."""
    from diffusers import FlowMatchEulerDiscreteScheduler

    if recipe.name == "ltx-video":
        from diffusers.pipelines.ltx.pipeline_ltx import calculate_shift

        scheduler = FlowMatchEulerDiscreteScheduler(
            use_dynamic_shifting=True,
            base_shift=0.95,
            max_shift=2.05,
            base_image_seq_len=1024,
            max_image_seq_len=4096,
            shift_terminal=0.1,
        )
        mu = calculate_shift(FRAMES * HEIGHT * WIDTH, 1024, 4096, 0.95, 2.05)
        scheduler.set_timesteps(steps, sigmas=np.linspace(1.0, 1 / steps, steps), mu=mu)
    elif recipe.name == "mochi":
        from diffusers.pipelines.mochi.pipeline_mochi import linear_quadratic_schedule

        scheduler = FlowMatchEulerDiscreteScheduler(invert_sigmas=True)
        scheduler.set_timesteps(steps, sigmas=np.array(linear_quadratic_schedule(steps, 0.025)))
    else:
        shift = recipe.sampling.shift.of(1, HEIGHT * WIDTH * 64)
        scheduler = FlowMatchEulerDiscreteScheduler(shift=shift)
        scheduler.set_timesteps(steps, sigmas=np.linspace(1.0, 0.0, steps + 1)[:-1])
    return scheduler


def svd_scheduler(steps: int) -> Any:
    from diffusers import EulerDiscreteScheduler

    scheduler = EulerDiscreteScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        prediction_type="v_prediction",
        sigma_min=0.002,
        sigma_max=700.0,
        steps_offset=1,
        timestep_spacing="leading",
        timestep_type="continuous",
        use_karras_sigmas=True,
    )
    scheduler.set_timesteps(steps)
    return scheduler


def discrete(make: Callable[[], Any]) -> Callable[[int], Any]:
    def build(steps: int) -> Any:
        scheduler = make()
        scheduler.set_timesteps(steps)
        return scheduler

    return build


@pytest.mark.parametrize("steps", [7, 20])
@pytest.mark.parametrize("name", ["wan", "ltx-video", "hunyuan-video", "mochi"])
def test_flows_follow_diffusers_scheduler(name: str, steps: int) -> None:
    recipe = recipe_named(name)
    scheduler, noise = flow_scheduler(recipe, steps), noise_for(recipe)
    told = [step.timestep for step in solver_steps(recipe, steps, FRAMES, HEIGHT, WIDTH)]
    assert torch.allclose(torch.tensor(told), scheduler.timesteps, atol=1e-3)
    assert torch.allclose(ours(recipe, noise, steps), theirs(scheduler, noise), atol=2e-4)


@pytest.mark.parametrize("steps", [7, 20])
@pytest.mark.parametrize(
    ("name", "build"),
    [
        ("cogvideox", discrete(lambda: cogvideox_scheduler(1.0))),
        ("cogvideox-2b", discrete(lambda: cogvideox_scheduler(3.0))),
        ("latte", discrete(latte_scheduler)),
        ("svd", svd_scheduler),
    ],
)
def test_schedules_follow_diffusers_schedulers(name: str, build: Callable[[int], Any], steps: int) -> None:
    recipe = recipe_named(name)
    scheduler, noise = build(steps), noise_for(recipe)
    told = [step.timestep for step in solver_steps(recipe, steps, FRAMES, HEIGHT, WIDTH)]
    assert torch.allclose(torch.tensor(told), scheduler.timesteps.float(), atol=1e-4)
    expected = theirs(scheduler, noise)
    tolerance = 1e-4 * float(expected.abs().max())
    assert torch.allclose(ours(recipe, noise, steps), expected.float(), atol=max(tolerance, 1e-4))


@pytest.mark.parametrize("recipe", ALL_RECIPES, ids=lambda recipe: recipe.name)
def test_a_perfect_module_leads_from_noise_to_the_clip(recipe: Recipe) -> None:
    """What training asks of a module is what sampling takes it for."""
    noise = noise_for(recipe, clips=1)
    clean = torch.linspace(-1, 1, noise.numel()).view_as(noise)
    steps = solver_steps(recipe, 8, FRAMES, HEIGHT, WIDTH)
    shares = {step.timestep: share for step, share in zip(steps, shares_of(recipe, 8), strict=True)}

    def perfect(inputs: tuple[Tensor, ...]) -> Tensor:
        told = min(shares, key=lambda value: abs(value - float(inputs[1][0])))
        pair = noise_clip(
            clean[0], noise[0], torch.tensor(shares[told], dtype=torch.float64), recipe.objective
        )
        assert float(pair.timestep) == pytest.approx(told, abs=1e-3)
        return pair.target[None]

    found = sample_latents(recipe, perfect, start(recipe, clean, noise), None, steps=8, guidance_scale=1.0)
    assert torch.allclose(found, clean, atol=2e-2)


def start(recipe: Recipe, clean: Tensor, noise: Tensor) -> Tensor:
    """Where sampling starts, exactly: a share of the clip too, unless the last share is all noise."""
    share = torch.tensor(shares_of(recipe, 8)[0], dtype=torch.float64)
    return noise_clip(clean[0], noise[0], share, recipe.objective).noised[None]


def shares_of(recipe: Recipe, steps: int) -> list[float]:
    objective = recipe.objective
    if isinstance(objective, RectifiedFlow):
        pixels = HEIGHT * WIDTH * recipe.autoencoder.spatial_factor**2
        shift = recipe.sampling.shift.of(recipe.tokens(FRAMES, HEIGHT, WIDTH), pixels)
        return flow_times(objective, steps, shift)[:-1]
    told = [step.timestep for step in solver_steps(recipe, steps, FRAMES, HEIGHT, WIDTH)]
    if recipe.name == "svd":
        sigmas = [float(np.exp(4 * value)) for value in told]
        return [sigma / (1 + sigma) for sigma in sigmas]
    return [(index + 0.5) / 1000 for index in told]


@pytest.mark.parametrize("recipe", ALL_RECIPES, ids=lambda recipe: recipe.name)
def test_guided_sampling_sees_both_conditions(recipe: Recipe) -> None:
    samples = [cached_sample(recipe, seed) for seed in (1, 2)]
    conditions = sampling_conditions(recipe, samples, empty=empty_caption(recipe))
    calls: list[tuple[Tensor, ...]] = []

    def predict(inputs: tuple[Tensor, ...]) -> Tensor:
        calls.append(inputs)
        assert len(inputs) == len(recipe.inputs)
        channels = recipe.autoencoder.channels
        assert inputs[0].shape == (2, channels + recipe.image_channels, FRAMES, HEIGHT, WIDTH)
        return torch.zeros_like(inputs[0][:, :channels])

    sample_latents(recipe, predict, noise_for(recipe), conditions, steps=2, guidance_scale=4.0)
    assert len(calls) == 4
    names: tuple[str, ...] = recipe.inputs
    nothing, wanted = (dict(zip(names, inputs, strict=True)) for inputs in calls[:2])
    key = "text" if recipe.text else "image_embedding"
    assert torch.equal(wanted[key], torch.stack([sample[key] for sample in samples]))
    assert not torch.equal(nothing[key], wanted[key])
    if recipe.image:
        behind = slice(recipe.autoencoder.channels, None)
        same = torch.equal(nothing["noised"][:, behind], wanted["noised"][:, behind])
        assert same == bool(recipe.text)
    calls.clear()
    sample_latents(recipe, predict, noise_for(recipe), conditions, steps=2, guidance_scale=1.0)
    assert len(calls) == 2


def test_ranks_without_conditions_make_the_same_calls() -> None:
    recipe, calls = recipe_named("wan"), []

    def predict(inputs: tuple[Tensor, ...]) -> Tensor:
        calls.append(len(inputs))
        return torch.zeros_like(inputs[0])

    sample_latents(recipe, predict, noise_for(recipe), None, steps=3, guidance_scale=5.0)
    assert calls == [2] * 6


def test_svd_is_guided_more_in_later_frames() -> None:
    recipe = recipe_named("svd")
    assert torch.allclose(guidance_of(recipe, 3).flatten(), torch.tensor([1.0, 2.0, 3.0]))
    assert float(guidance_of(recipe, 3, 1.0)) == 1
    assert float(guidance_of(recipe_named("wan"), 3)) == 5


def test_embedded_guidance_is_told_to_samples() -> None:
    recipe = recipe_named("hunyuan-video")
    conditions = sampling_conditions(recipe, [cached_sample(recipe)], empty=empty_caption(recipe))
    assert conditions.wanted["guidance"].tolist() == [6000.0]


def test_noise_has_whole_temporal_patches() -> None:
    from dataclasses import replace

    recipe = replace(recipe_named("cogvideox"), temporal_patch=2)
    assert (noise_frames(3, recipe), noise_frames(4, recipe)) == (4, 4)


def test_a_given_first_frame_stays_as_it_is() -> None:
    from dataclasses import replace

    recipe = replace(recipe_named("wan-ti2v"), first_frame_share=0.5)
    samples = [cached_sample(recipe, seed) for seed in (1, 2)]
    conditions = sampling_conditions(recipe, samples, empty=empty_caption(recipe))
    first = torch.stack([sample["latents"][:, 0] for sample in samples])

    def predict(inputs: tuple[Tensor, ...]) -> Tensor:
        noised, timestep, _ = inputs
        assert torch.equal(noised[:, :, 0], first)
        assert timestep.shape == (2, FRAMES)
        assert float(timestep[:, 0].abs().max()) == 0 < float(timestep[:, 1:].min())
        return torch.ones_like(noised)

    found = sample_latents(recipe, predict, noise_for(recipe), conditions, steps=3)
    assert torch.equal(found[:, :, 0], first)
    assert not torch.equal(found[:, :, 1], noise_for(recipe)[:, :, 1])
