"""Conditions of one sample: captions, images, and numbers that a module is told; and what stands for none."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from vdsgen.errors import VdsgenError
from vdsgen.spec.recipes.recipe import Recipe

FLOATS = ("text", "pooled_text", "image", "image_embedding")


@dataclass(frozen=True, slots=True)
class Drop:
    """What a sample is trained without."""

    condition: bool
    """Its caption; its image's embedding for SVD."""
    image: bool
    """Its image channels, which are zeros then."""

    @classmethod
    def none(cls) -> Drop:
        return cls(condition=False, image=False)

    @classmethod
    def by_chance(cls, recipe: Recipe, chance: Tensor) -> Drop:
        """`chance`: numbers in [0, 1).

        SVD drops the embedding alone, the channels alone, and both, each in `condition_dropout` of samples,
        so that the sampler's nothing, both, is known to it.
        """
        share = recipe.condition_dropout
        first, second = float(chance[0]), float(chance[1])
        if recipe.text:
            dropout = recipe.image.dropout if recipe.image else 0.0
            return cls(condition=first < share, image=second < dropout)
        return cls(condition=first < 2 * share, image=share <= first < 3 * share)


def conditions_of(recipe: Recipe, sample: Mapping[str, Tensor], variant: float = 0.0) -> dict[str, Tensor]:
    """What one cached sample is conditioned on, by name; `variant` in [0, 1) picks a noised image."""
    found: dict[str, Tensor] = {name: sample[name].float() for name in FLOATS if name in recipe.inputs}
    if "text_mask" in recipe.inputs:
        found["text_mask"] = sample["text_mask"].long()
    if recipe.image:
        images, strength = sample["image_latents"].float(), torch.tensor(0.0)
        if recipe.image.noise:
            chosen = min(int(variant * len(images)), len(images) - 1)
            images, strength = images[chosen], sample["image_noise"].float()[chosen]
        found["image_latents"] = images
        if recipe.micro_conditions:
            found["added_time_ids"] = added_time_ids(recipe, strength)
    return found


def added_time_ids(recipe: Recipe, strength: Tensor) -> Tensor:
    """(3,) float32: frame rate less 1, motion bucket, noise of the image."""
    told = recipe.micro_conditions
    assert told is not None
    return torch.stack(
        [torch.tensor(told.frame_rate - 1), torch.tensor(float(told.motion_bucket_id)), strength]
    )


def nothing_of(
    recipe: Recipe, sample: Mapping[str, Tensor], empty: Mapping[str, Tensor] | None
) -> dict[str, Tensor]:
    """What stands for no caption, or for no image embedding; in the shapes of `sample`."""
    names = [name for name in ("text", "text_mask", "pooled_text") if name in recipe.inputs]
    if not recipe.text:
        return {"image_embedding": torch.zeros_like(sample["image_embedding"], dtype=torch.float32)}
    if recipe.empty_text == "zeros":
        return {name: torch.zeros_like(_typed(name, sample[name])) for name in names}
    if empty is None or any(name not in empty for name in names):
        raise VdsgenError(
            f"{recipe.summary} is trained on the empty caption too, whose encoding is missing",
            remedy="encode the clips again, or set training.diffusion.recipe.condition_dropout to 0",
        )
    return {name: _typed(name, empty[name]) for name in names}


def _typed(name: str, tensor: Tensor) -> Tensor:
    return tensor.long() if name == "text_mask" else tensor.float()


def image_channels(recipe: Recipe, conditions: dict[str, Tensor], frames: int, *, zeros: bool) -> Tensor:
    """(image channels, frames, H, W) float32, which come behind the noised ones."""
    image = recipe.image
    assert image is not None
    latents = conditions["image_latents"]
    if zeros:
        latents = torch.zeros_like(latents)
    if image.channels == "masked_clip":
        mask = torch.zeros(recipe.autoencoder.temporal_factor, *latents.shape[1:])
        mask[:, 0] = 1
        return torch.cat([mask, latents])
    channels, height, width = latents.shape
    if image.channels == "repeated_frame":
        return latents[:, None].expand(channels, frames, height, width)
    clip = torch.zeros(channels, frames, height, width)
    clip[:, 0] = latents
    return clip
