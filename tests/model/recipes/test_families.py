"""What a recipe draws is what the family's layers take, and its loss reaches every weight that it should."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.model.families.stages import built
from tests.model.families.tiny import TINY, Tiny, normal
from vdsgen.model.data.order import generator_for
from vdsgen.model.recipes.draw import Drawn, draw
from vdsgen.model.recipes.loss import recipe_loss
from vdsgen.model.recipes.sample import sample_latents, sampling_conditions
from vdsgen.spec.recipes import recipe_for
from vdsgen.spec.recipes.recipe import IMAGE_NOISE_VARIANTS, Recipe

NAMES = (
    "wan",
    "wan, a timestep a frame",
    "wan, image",
    "cogvideox",
    "cogvideox, learned positions",
    "cogvideox 1.5, image",
    "ltx",
    "ltx, a timestep a frame",
    "hunyuan video",
    "hunyuan video, without guidance",
    "mochi",
    "latte",
    "svd",
)


def cached(recipe: Recipe, tiny: Tiny, seed: int) -> dict[str, Tensor]:
    """A sample as the family's encoders would give it for the tiny model."""
    generator = torch.Generator().manual_seed(seed)
    named = dict(zip(recipe.inputs, tiny.inputs(), strict=True))
    channels, (frames, height, width) = recipe.autoencoder.channels, named["noised"].shape[2:]
    if recipe.temporal_patch > 1:
        frames -= 1  # an odd number, which the recipe fills up
    tensors: dict[str, Tensor] = {name: tensor[0] for name, tensor in named.items()}
    tensors["latents"] = torch.randn(channels, frames, height, width, generator=generator)
    if recipe.image and recipe.image.noise:
        tensors["image_latents"] = torch.randn(
            IMAGE_NOISE_VARIANTS, channels, height, width, generator=generator
        )
        tensors["image_noise"] = torch.full((IMAGE_NOISE_VARIANTS,), 0.05)
    else:
        tensors["image_latents"] = tensors["latents"]
    return {name: tensors[name] for name in recipe.cached}


def batch(drawn: list[Drawn]) -> tuple[tuple[Tensor, ...], Tensor, Tensor]:
    inputs = tuple(torch.stack(column) for column in zip(*(one.inputs for one in drawn), strict=True))
    return inputs, torch.stack([one.target for one in drawn]), torch.stack([one.weight for one in drawn])


def run(layers: Any, inputs: Any) -> Tensor:
    for layer in layers:
        inputs = layer(inputs)
    assert isinstance(inputs, Tensor)
    return inputs


@pytest.mark.parametrize("name", NAMES)
def test_layers_take_what_recipes_draw_and_sample(name: str) -> None:
    tiny = TINY[name]
    if name == "wan, image":
        # With all channels of the mask.
        shape = tiny.inputs()[1:]
        wide = tiny.config | {"in_channels": 12}  # type: ignore[operator]
        tiny = replace(tiny, config=wide, inputs=lambda: (normal(2, 12, 3, 4, 6), *shape))
    recipe, layers = recipe_for(tiny.class_name, tiny.config), built(tiny)
    if name.endswith("a timestep a frame"):
        recipe = replace(recipe, first_frame_share=1.0)
    samples = [cached(recipe, tiny, seed) for seed in (1, 2)]
    empty = samples[1]
    inputs, target, weight = batch(
        [draw(recipe, sample, generator_for(3, index), empty=empty) for index, sample in enumerate(samples)]
    )
    assert [x.shape[1:] for x in inputs] == [x.shape[1:] for x in tiny.inputs()]
    loss = recipe_loss(run(layers, inputs), (target, weight))
    loss.backward()  # type: ignore[no-untyped-call]
    assert torch.isfinite(loss)
    gradients = [p.grad for layer in layers for p in layer.parameters() if p.grad is not None]
    assert all(bool(torch.isfinite(gradient).all()) for gradient in gradients)
    assert sum(float(gradient.abs().sum()) for gradient in gradients) > 0
    with torch.no_grad():
        conditions = sampling_conditions(recipe, samples, empty=empty)
        noise = torch.randn(target.shape, generator=torch.Generator().manual_seed(0))
        found = sample_latents(recipe, lambda one: run(layers, one), noise, conditions, steps=2)
    assert found.shape == target.shape
    assert bool(torch.isfinite(found).all())
