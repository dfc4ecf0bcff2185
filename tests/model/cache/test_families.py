"""Diffusers families train from the cache as they do with their encoders in the step."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from tests.clips import numbered, write_frames
from tests.model.families.tiny import TINY
from tests.model.recipes.pipelines import save_pipeline
from tests.model.recipes.samples import recipe_named
from vdsgen.model.cache.content import Contents
from vdsgen.model.cache.families import encoders_of
from vdsgen.model.cache.fill import fill
from vdsgen.model.cache.source import CachedRecipeSource
from vdsgen.model.cache.state import cache_state, hashes_of
from vdsgen.model.cache.store import open_store
from vdsgen.model.data.clips import ClipReader
from vdsgen.model.data.held_out import as_held_out
from vdsgen.model.data.index import scan
from vdsgen.model.data.order import Draw
from vdsgen.model.recipes.encoders.family import FamilyEncoders, MakeFamilyEncoders
from vdsgen.model.recipes.source import RecipeSource
from vdsgen.model.sources import open_source
from vdsgen.model.validation import held_out_of
from vdsgen.spec.data import Data, LatentCache, SpaceToDepth
from vdsgen.spec.diffusers_model import DiffusersModel
from vdsgen.spec.experiment import Experiment
from vdsgen.spec.training import Training, Validation


@pytest.mark.parametrize("name", ["wan-i2v-clip", "svd", "hunyuan-video"])
def test_samples_of_a_recipe_are_those_without_a_cache_to_the_last_bit(name: str, tmp_path: Path) -> None:
    recipe = recipe_named(name)
    if recipe.text:
        recipe = replace(recipe, condition_dropout=0.5)
    recipe = save_pipeline(tmp_path / "pipeline", recipe)
    for number in range(2):
        write_frames(tmp_path / "clips" / f"{number}.mp4", numbered(9, first=20 * number))
    (tmp_path / "clips" / "0.txt").write_text("a red car")
    data = Data(
        videos=str(tmp_path / "clips"), frames=9, height=32, width=32,
        cache=LatentCache(folder=str(tmp_path / "cache"), dtype="fp32"),
    )  # fmt: skip
    index, store = scan(data), open_store(tmp_path / "cache", make=True)
    contents = Contents(store.folder)
    make = MakeFamilyEncoders(recipe, tmp_path / "pipeline")
    state = cache_state(index, data, make, hashes_of(index, contents, range(2)))
    assert fill(state.missing(store), "cpu").entries == 2 + 2 * bool(recipe.text)
    store.refresh()
    cached = CachedRecipeSource(state.reader(store, 3, 0.0), recipe, decode=lambda latents: latents)
    plain = RecipeSource(
        reader=ClipReader(index, data, 3, condition_dropout=0.0),
        encoders=FamilyEncoders(recipe, tmp_path / "pipeline"),
        recipe=recipe,
        seed=3,
        captions=tuple(entry.caption for entry in index.entries),
    )
    for place in range(4):
        found, expected = cached.sample(Draw.of_one_size(place)), plain.sample(Draw.of_one_size(place))
        pairs = zip((*found.inputs, found.target), (*expected.inputs, expected.target), strict=True)
        assert all(torch.equal(one, other) for one, other in pairs)
    shown, expected_shown = cached.shown(0), plain.shown(0)
    assert shown.keys() == expected_shown.keys()
    assert all(torch.equal(shown[name], expected_shown[name]) for name in shown)
    inputs, (target, weight) = cached.stacked([cached.sample(Draw.of_one_size(n)) for n in range(2)])
    assert inputs[0].shape[0] == target.shape[0] == weight.shape[0] == 2


def test_held_out_clips_of_a_recipe_are_those_without_a_cache(tmp_path: Path) -> None:
    for number in range(2):
        write_frames(tmp_path / "clips" / f"{number}.mp4", numbered(9, first=20 * number))
    config = {**TINY["wan"].config, "in_channels": 48, "out_channels": 48}
    model = DiffusersModel(family="diffusers", name="wan", class_name="WanTransformer3DModel", config=config)
    data = Data(
        videos=str(tmp_path / "clips"), frames=3, height=32, width=32, random_flip=True,
        latents=SpaceToDepth(factor=4), cache=LatentCache(folder=str(tmp_path / "cache"), dtype="fp32"),
    )  # fmt: skip
    validation = Validation(fraction=0.5, quantiles=(0.3, 0.7))
    training = Training(global_batch_size=1, steps=1, validation=validation)
    experiment = Experiment(name="held-out", model=model, data=data, training=training)
    index, store = scan(experiment.data), open_store(tmp_path / "cache", make=True)
    hashes = hashes_of(index, Contents(store.folder), range(2))
    state = cache_state(index, as_held_out(experiment.data), encoders_of(experiment), hashes)
    assert fill(state.missing(store), "cpu").entries == 2 + 1, "a window of each, and the empty caption"
    store.refresh()
    cached = open_source(experiment, index, "cpu", state.reader(store, 3, 0.0))
    plain = open_source(experiment, index, "cpu")
    found, expected = (held_out_of(experiment, index, source) for source in (cached, plain))
    assert found.samples == expected.samples == 4
    for place in range(4):
        (inputs, target), (others, other) = found.sample(place), expected.sample(place)
        pairs = zip((*inputs, *target), (*others, *other), strict=True)
        assert all(torch.equal(one, another) for one, another in pairs)
