"""One training sample of a diffusers family: from cached tensors to inputs and target of the model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from vdsgen.errors import VdsgenError
from vdsgen.model.recipes.conditioning import Drop, conditions_of, image_channels, nothing_of
from vdsgen.model.recipes.noising import TIMESTEPS, by_frame, noise_clip
from vdsgen.model.recipes.timesteps import draw_quantile, share_at
from vdsgen.spec.recipes.recipe import Recipe

Tensors = Mapping[str, Tensor]
"""By the names of `Recipe.cached`, without batch axis."""


@dataclass(frozen=True, slots=True)
class Drawn:
    """One training sample, without batch axis."""

    inputs: tuple[Tensor, ...]
    """In the order of `Recipe.inputs`."""
    target: Tensor
    """(C, T, H, W) float32"""
    weight: Tensor
    """() float32: factor of this sample's mean squared error; (T,): of each frame's"""


def draw(
    recipe: Recipe,
    sample: Tensors,
    generator: torch.Generator,
    *,
    empty: Tensors | None = None,
    quantile: float | None = None,
) -> Drawn:
    """Noises one clip and drops conditions, all by `generator` (CPU).

    `empty` holds the encodings of the empty caption, where the recipe wants them (`Recipe.empty_text`).
    `quantile` fixes the share of noise at a quantile of its distribution and drops nothing: validation.
    The generator is asked for the same numbers either way. Raises VdsgenError where a tensor is missing.
    """
    check_tensors(recipe, sample)
    clean = whole_patches(sample["latents"].float(), recipe)
    frames, height, width = clean.shape[1:]
    drawn = draw_quantile(generator)
    chance = torch.rand(4, generator=generator, dtype=torch.float64)
    noise = torch.randn(clean.shape, generator=generator)
    fixed = drawn if quantile is None else torch.tensor(quantile, dtype=torch.float64)
    share = share_at(fixed, recipe.timesteps, training_shift(recipe, frames, height, width))
    pair = noise_clip(clean, noise, share, recipe.objective)
    if recipe.first_frame_share:
        pair = by_frame(pair, clean, given=quantile is None and float(chance[3]) < recipe.first_frame_share)
    drop = Drop.none() if quantile is not None else Drop.by_chance(recipe, chance)
    conditions = conditions_of(recipe, sample, variant=float(chance[2]))
    if drop.condition:
        conditions |= nothing_of(recipe, sample, empty)
    if recipe.image:
        channels = image_channels(recipe, conditions, frames, zeros=drop.image)
        noised = torch.cat([pair.noised, channels])
    else:
        noised = pair.noised
    parts = {**conditions, "noised": noised, "timestep": pair.timestep}
    if recipe.guidance is not None:
        parts["guidance"] = torch.tensor(TIMESTEPS * recipe.guidance)
    return Drawn(tuple(parts[name] for name in recipe.inputs), pair.target, pair.weight)


def training_shift(recipe: Recipe, frames: int, height: int, width: int) -> float:
    """Of a latent clip."""
    pixels = height * width * recipe.autoencoder.spatial_factor**2
    return recipe.shift.of(recipe.tokens(frames, height, width), pixels)


def whole_patches(latents: Tensor, recipe: Recipe) -> Tensor:
    """The first frame repeated in front until temporal patches divide the clip."""
    missing = added_frames(latents.shape[1], recipe)
    return torch.cat([latents[:, :1].expand(-1, missing, -1, -1), latents], dim=1) if missing else latents


def added_frames(frames: int, recipe: Recipe) -> int:
    """Latent frames that `whole_patches` puts in front; samples are made with them, and lose them again."""
    return -frames % recipe.temporal_patch


def check_tensors(recipe: Recipe, sample: Tensors) -> None:
    """Raises VdsgenError for a sample that lacks what the recipe wants, or whose latents are another's."""
    missing = [name for name in recipe.cached if name not in sample]
    if missing:
        raise VdsgenError(
            f"cached samples lack {', '.join(missing)}, which {recipe.summary} is trained with",
            remedy="encode the clips again with the pipeline of this model",
        )
    shape = tuple(sample["latents"].shape)
    if len(shape) != 4 or shape[0] != recipe.autoencoder.channels:
        raise VdsgenError(
            f"cached latents are {shape}; {recipe.summary} takes ({recipe.autoencoder.channels}, frames, "
            "height, width)",
            remedy="encode the clips again with the pipeline of this model",
        )
