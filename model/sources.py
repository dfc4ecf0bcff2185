"""Where the samples of an experiment come from: its kind of model decides, and its cache if it has one."""

from __future__ import annotations

import functools
from pathlib import Path

import torch

from vdsgen.model.cache.reader import CacheReader
from vdsgen.model.cache.source import CachedRecipeSource, CachedSource, cached_source
from vdsgen.model.data.clips import ClipReader
from vdsgen.model.data.index import Index
from vdsgen.model.data.samples import SampleSource, source_for
from vdsgen.model.latents import codec_for
from vdsgen.model.recipes.source import Encoders, RecipeSource
from vdsgen.spec.architecture import Vdt
from vdsgen.spec.data import Data
from vdsgen.spec.diffusers_model import DiffusersModel
from vdsgen.spec.experiment import Experiment
from vdsgen.spec.recipes import trained_recipe
from vdsgen.spec.recipes.recipe import Recipe

BundledSource = SampleSource | CachedSource
AnyRecipeSource = RecipeSource | CachedRecipeSource
AnySource = BundledSource | AnyRecipeSource


def open_source(
    experiment: Experiment,
    index: Index,
    device: torch.device | str = "cpu",
    cached: CacheReader | None = None,
) -> AnySource:
    """The samples of an experiment whose model is resolved, over the clips of `index`; encoders run on
    `device`, and with `cached` not at all before a sample video is decoded. Raises VdsgenError where clips,
    encoders and model do not fit each other."""
    model, data = experiment.model, experiment.data
    if isinstance(model, Vdt):
        if cached is None:
            return source_for(experiment, index, device)
        codec = functools.cache(lambda: codec_for(data, device))
        return cached_source(experiment, cached, lambda latents: codec().decode(latents))
    assert isinstance(model, DiffusersModel), "the experiment's model has not been resolved"
    recipe = trained_recipe(model, experiment)
    if cached is not None:
        encoders = functools.cache(lambda: _encoders(model, recipe, data, device))
        return CachedRecipeSource(cached, recipe, lambda latents: encoders().decode(latents))
    seed = experiment.training.seed
    return RecipeSource(
        # Conditions are dropped by the recipe.
        reader=ClipReader(index, data, seed, condition_dropout=0.0),
        encoders=_encoders(model, recipe, data, device),
        recipe=recipe,
        seed=seed,
        captions=tuple(entry.caption for entry in index.entries),
    )


def _encoders(model: DiffusersModel, recipe: Recipe, data: Data, device: torch.device | str) -> Encoders:
    if data.pipeline is None:
        from vdsgen.model.recipes.plain import PlainEncoders

        return PlainEncoders(recipe, model.config, codec_for(data, device))
    from vdsgen.model.recipes.encoders.family import FamilyEncoders

    return FamilyEncoders(recipe, Path(data.pipeline), device)
