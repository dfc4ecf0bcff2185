"""Held-out clips of a diffusers model, at fixed noise levels with fixed noise."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from vdsgen.model.cache.source import CachedRecipeSource
from vdsgen.model.data.clips import ClipReader
from vdsgen.model.data.index import Index
from vdsgen.model.data.order import generator_for
from vdsgen.model.recipes.draw import draw, training_shift
from vdsgen.model.recipes.source import RecipeSource
from vdsgen.model.recipes.timesteps import share_at
from vdsgen.spec.diffusers_model import DiffusersModel
from vdsgen.spec.experiment import Experiment
from vdsgen.spec.geometry import geometry_of
from vdsgen.spec.recipes import trained_recipe
from vdsgen.spec.recipes.recipe import Recipe


@dataclass(frozen=True, slots=True)
class RecipeHeldOut:
    """`HeldOut` of vdsgen.model.validation; `timesteps` are shares of noise."""

    recipe: Recipe
    seed: int
    paths: tuple[str, ...]
    quantiles: tuple[float, ...]
    timesteps: Tensor
    tensors: tuple[dict[str, Tensor], ...]
    """Of each clip, as encoded; none where this rank reads no clips."""
    empty: dict[str, Tensor]
    """The empty caption's."""

    @property
    def samples(self) -> int:
        return len(self.paths) * len(self.quantiles)

    def sample(self, place: int) -> tuple[tuple[Tensor, ...], tuple[Tensor, Tensor]]:
        """(inputs, (target, weight)), without batch axis"""
        clip, level = divmod(place, len(self.quantiles))
        generator = generator_for(self.seed, "validation", self.paths[clip])
        drawn = draw(
            self.recipe,
            self.tensors[clip],
            generator,
            empty=self.empty,
            quantile=self.quantiles[level],
        )
        return drawn.inputs, (drawn.target, drawn.weight)


def recipe_held_out(
    experiment: Experiment, index: Index, source: RecipeSource | CachedRecipeSource | None
) -> RecipeHeldOut:
    """The clips of `index`, encoded where this rank reads clips; or read from the cache, where `source` is of
    the held-out clips in it."""
    model, validation = experiment.model, experiment.training.validation
    assert isinstance(model, DiffusersModel)
    assert validation is not None, "held-out clips are asked for"
    recipe = trained_recipe(model, experiment)
    tensors: list[dict[str, Tensor]] = []
    if isinstance(source, CachedRecipeSource):
        for place, entry in enumerate(index.entries):
            tensors.append({**source.reader.middle(place), **source.text(entry.caption)})
    elif source is not None:
        reader = ClipReader(index, experiment.data.model_copy(update={"decoded_cache_mib": 0}), 0, 0.0)
        for place, entry in enumerate(index.entries):
            tensors.append(source.encoders.encode_clip(reader.middle(place)) | source.text(entry.caption))
    geometry = geometry_of(experiment.data, model)
    frames = geometry.frames * recipe.temporal_patch
    shift = training_shift(recipe, frames, geometry.latent_height, geometry.latent_width)
    shares = [
        share_at(torch.tensor(quantile, dtype=torch.float64), recipe.timesteps, shift)
        for quantile in validation.quantiles
    ]
    return RecipeHeldOut(
        recipe=recipe,
        seed=experiment.training.seed,
        paths=tuple(entry.path for entry in index.entries),
        quantiles=validation.quantiles,
        timesteps=torch.stack(shares).float(),
        tensors=tuple(tensors),
        empty={} if source is None else source.text(""),
    )
