"""Samples of the diffusers families: from noise to latents through the engine as it trains.

As in vdsgen.model.sample, every rank takes part in every prediction; ranks that hold no conditions (later
stages of a pipeline) go through the same calls without them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from vdsgen.model.recipes.conditioning import conditions_of, image_channels, nothing_of
from vdsgen.model.recipes.draw import Tensors, added_frames, check_tensors
from vdsgen.model.recipes.noising import TIMESTEPS
from vdsgen.model.recipes.solver import initial_scale, solver_steps
from vdsgen.spec.recipes.recipe import Recipe

CHANNELS, FIRST_FRAME = "channels", "first_frame"
"""Names, among `SamplingConditions`, of the channels that are put behind the noised ones, and of the latents
(B, C, 1, H, W) of a given first frame."""

Predict = Callable[[tuple[Tensor, ...]], Tensor]
"""The first layer's inputs -> prediction (B, C_out, T, H, W) float32; collective."""


@dataclass(frozen=True, slots=True)
class SamplingConditions:
    """What each clip is to show, and what stands for nothing: batches, by the names of the inputs."""

    wanted: Mapping[str, Tensor]
    nothing: Mapping[str, Tensor]


def sampling_conditions(
    recipe: Recipe, samples: Sequence[Tensors], *, empty: Tensors | None = None
) -> SamplingConditions:
    """Those of some cached samples. Raises VdsgenError where a tensor is missing."""
    wanted, nothing = [], []
    for sample in samples:
        check_tensors(recipe, sample)
        frames = sample["latents"].shape[1]
        frames += added_frames(frames, recipe)
        conditions = conditions_of(recipe, sample)
        none = conditions | nothing_of(recipe, sample, empty)
        if recipe.image:
            conditions[CHANNELS] = image_channels(recipe, conditions, frames, zeros=False)
            # SVD's nothing has no image at all; text families keep it.
            none[CHANNELS] = image_channels(recipe, none, frames, zeros=not recipe.text)
        if recipe.gives_first_frame:
            conditions[FIRST_FRAME] = none[FIRST_FRAME] = sample["latents"][:, :1].float()
        told = recipe.sampling.embedded_guidance
        if told is not None:
            conditions["guidance"] = none["guidance"] = torch.tensor(TIMESTEPS * told)
        wanted.append(conditions)
        nothing.append(none)
    return SamplingConditions(_batch(recipe, wanted), _batch(recipe, nothing))


def _batch(recipe: Recipe, rows: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
    names = [name for name in (*recipe.inputs, CHANNELS, FIRST_FRAME) if name in rows[0]]
    return {name: torch.stack([row[name] for row in rows]) for name in names}


def sample_latents(
    recipe: Recipe,
    predict: Predict,
    noise: Tensor,
    conditions: SamplingConditions | None,
    *,
    steps: int | None = None,
    guidance_scale: float | None = None,
) -> Tensor:
    """Latents (B, C, T, H, W) float32 from `noise` of that shape and unit size.

    Where temporal patches do not divide a clip, its noise has `added_frames` more in front (`noise_frames`),
    and so have the latents: the caller drops them. `steps` and `guidance_scale` are the recipe's where None.
    """
    batch, channels, frames, height, width = noise.shape
    scale = guidance_of(recipe, frames, guidance_scale).to(noise.device)
    x = noise * initial_scale(recipe)
    for step in solver_steps(recipe, steps or recipe.sampling.steps, frames, height, width):
        timestep = torch.full((batch,), step.timestep, device=noise.device)
        if recipe.gives_first_frame:
            x, timestep = _with_first_frame(x, conditions), timestep[:, None].repeat(1, frames)
            timestep[:, 0] = 0
        prediction = _guided(recipe, predict, step.scale * x, timestep, conditions, scale)
        x = step.keep * x + step.add * prediction[:, :channels]
    return _with_first_frame(x, conditions) if recipe.gives_first_frame else x


def _with_first_frame(x: Tensor, conditions: SamplingConditions | None) -> Tensor:
    """The given first frame in the place of x's own."""
    if conditions is None:
        return x
    return torch.cat([conditions.wanted[FIRST_FRAME].to(x.device), x[:, :, 1:]], dim=2)


def guidance_of(recipe: Recipe, frames: int, scale: float | None = None) -> Tensor:
    """() or (T, 1, 1) float32: of classifier-free guidance, for each frame."""
    last = recipe.sampling.guidance_scale if scale is None else scale
    first = recipe.sampling.first_frame_guidance
    if first is None or last == 1:
        return torch.tensor(last)
    return torch.linspace(first, last, frames).view(frames, 1, 1)


def noise_frames(frames: int, recipe: Recipe) -> int:
    """Latent frames of the noise that a clip of `frames` latent frames is sampled from."""
    return frames + added_frames(frames, recipe)


def _guided(
    recipe: Recipe,
    predict: Predict,
    noised: Tensor,
    timestep: Tensor,
    conditions: SamplingConditions | None,
    scale: Tensor,
) -> Tensor:
    """nothing + scale * (wanted - nothing). How often `predict` is called depends on the scale alone."""

    def under(found: Mapping[str, Tensor] | None) -> Tensor:
        return predict(_inputs(recipe, noised, timestep, found))

    if scale.ndim == 0 and float(scale) == 1:
        return under(conditions.wanted if conditions else None)
    nothing = under(conditions.nothing if conditions else None)
    wanted = under(conditions.wanted if conditions else None)
    return nothing + scale * (wanted - nothing)


def _inputs(
    recipe: Recipe, noised: Tensor, timestep: Tensor, found: Mapping[str, Tensor] | None
) -> tuple[Tensor, ...]:
    if found is None:
        return (noised, timestep)
    moved = {name: tensor.to(noised.device) for name, tensor in found.items()}
    if CHANNELS in moved:
        noised = torch.cat([noised, moved[CHANNELS]], dim=1)
    parts = {**moved, "noised": noised, "timestep": timestep}
    return tuple(parts[name] for name in recipe.inputs)
