"""Tiny cached samples, as the encoders of each family give them."""

from __future__ import annotations

import torch
from torch import Tensor

from vdsgen.spec.recipes import ALL_RECIPES
from vdsgen.spec.recipes.recipe import IMAGE_NOISE_VARIANTS, Recipe

FRAMES, HEIGHT, WIDTH = 3, 4, 6
TEXT = (5, 7)
"""Tokens and width of text."""


def recipe_named(name: str) -> Recipe:
    return next(recipe for recipe in ALL_RECIPES if recipe.name == name)


def cached_sample(recipe: Recipe, seed: int = 0) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator)

    channels = recipe.autoencoder.channels
    image = (
        (channels, FRAMES, HEIGHT, WIDTH)
        if recipe.image and recipe.image.channels == "masked_clip"
        else (IMAGE_NOISE_VARIANTS, channels, HEIGHT, WIDTH)
    )
    tensors = {
        "latents": normal(channels, FRAMES, HEIGHT, WIDTH),
        "text": normal(*TEXT),
        "text_mask": torch.tensor([1, 1, 1, 0, 0]),
        "pooled_text": normal(9),
        "image": normal(257, 8),
        "image_embedding": normal(1, 8),
        "image_latents": normal(*image),
        "image_noise": torch.tensor([0.02, 0.04, 0.06, 0.08]),
    }
    return {name: tensors[name] for name in recipe.cached}


def empty_caption(recipe: Recipe) -> dict[str, Tensor]:
    sample = cached_sample(recipe, seed=99)
    return {name: sample[name] for name in ("text", "text_mask", "pooled_text") if name in sample}
