from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from tests.model.recipes.samples import (
    FRAMES,
    HEIGHT,
    WIDTH,
    cached_sample,
    empty_caption,
    recipe_named,
)
from vdsgen.errors import VdsgenError
from vdsgen.model.data.order import generator_for
from vdsgen.model.recipes.draw import Drawn, draw
from vdsgen.model.recipes.loss import recipe_loss
from vdsgen.spec.recipes import ALL_RECIPES
from vdsgen.spec.recipes.changes import RecipeChanges, changed
from vdsgen.spec.recipes.recipe import Recipe


def drawn(recipe: Recipe, index: int = 0, **options: float) -> Drawn:
    sample = cached_sample(recipe)
    return draw(recipe, sample, generator_for(0, "objective", index), empty=empty_caption(recipe), **options)


def named(recipe: Recipe, result: Drawn) -> dict[str, Tensor]:
    return dict(zip(recipe.inputs, result.inputs, strict=True))


@pytest.mark.parametrize("recipe", ALL_RECIPES, ids=lambda recipe: recipe.name)
def test_shapes_and_types(recipe: Recipe) -> None:
    result = drawn(recipe)
    inputs, sample = named(recipe, result), cached_sample(recipe)
    channels = recipe.autoencoder.channels
    assert inputs["noised"].shape == (channels + recipe.image_channels, FRAMES, HEIGHT, WIDTH)
    assert result.target.shape == (channels, FRAMES, HEIGHT, WIDTH)
    assert inputs["timestep"].shape == result.weight.shape == ()
    for name, tensor in inputs.items():
        assert tensor.dtype == (torch.int64 if name == "text_mask" else torch.float32), name
        if name in sample and name != "latents":
            assert tensor.shape == sample[name].shape, name
    if "added_time_ids" in inputs:
        assert inputs["added_time_ids"].shape == (3,)


@pytest.mark.parametrize("recipe", ALL_RECIPES, ids=lambda recipe: recipe.name)
def test_a_draw_is_a_function_of_its_generator(recipe: Recipe) -> None:
    first, again, other = drawn(recipe, 3), drawn(recipe, 3), drawn(recipe, 4)
    assert all(torch.equal(a, b) for a, b in zip(first.inputs, again.inputs, strict=True))
    assert torch.equal(first.target, again.target)
    assert not torch.equal(first.inputs[0], other.inputs[0])


@pytest.mark.parametrize("recipe", ALL_RECIPES, ids=lambda recipe: recipe.name)
def test_fixed_quantiles_see_the_same_noise_and_all_conditions(recipe: Recipe) -> None:
    low, high = drawn(recipe, quantile=0.1), drawn(recipe, quantile=0.9)
    other = named(changed(recipe, RecipeChanges(condition_dropout=1.0)), drawn(recipe, quantile=0.5))
    sample = cached_sample(recipe)
    key = "text" if recipe.text else "image_embedding"
    assert torch.equal(other[key], sample[key])
    rising = float(high.inputs[1]) > float(low.inputs[1])
    assert rising != (recipe.name == "mochi")
    if recipe.name in ("wan", "mochi"):
        assert torch.equal(low.target, high.target)


def test_text_is_dropped_in_its_share_of_samples() -> None:
    recipe = changed(recipe_named("hunyuan-video"), RecipeChanges(condition_dropout=0.25))
    empty, dropped = empty_caption(recipe), 0
    for index in range(400):
        inputs = named(recipe, drawn(recipe, index))
        is_empty = torch.equal(inputs["text"], empty["text"])
        assert is_empty == torch.equal(inputs["pooled_text"], empty["pooled_text"])
        dropped += is_empty
    assert 70 <= dropped <= 130


def test_mochi_zeroes_text_and_mask() -> None:
    recipe = changed(recipe_named("mochi"), RecipeChanges(condition_dropout=1.0))
    inputs = named(recipe, draw(recipe, cached_sample(recipe), generator_for(0)))
    assert float(inputs["text"].abs().max()) == 0
    assert inputs["text_mask"].tolist() == [0] * 5


def test_svd_drops_embedding_channels_and_both() -> None:
    recipe = recipe_named("svd")
    seen = {(True, True): 0, (True, False): 0, (False, True): 0, (False, False): 0}
    for index in range(600):
        inputs = named(recipe, drawn(recipe, index))
        embedding = float(inputs["image_embedding"].abs().max()) > 0
        channels = float(inputs["noised"][4:].abs().max()) > 0
        seen[embedding, channels] += 1
    for kind in ((False, True), (True, False), (False, False)):
        assert 35 <= seen[kind] <= 90, seen
    assert seen[True, True] > 350


def test_svd_is_told_the_noise_of_its_image() -> None:
    recipe, sample = recipe_named("svd"), cached_sample(recipe_named("svd"))
    variants = set()
    for index in range(40):
        inputs = named(recipe, drawn(recipe, index, quantile=0.5))
        rate, bucket, strength = inputs["added_time_ids"].tolist()
        assert (rate, bucket) == (6.0, 127.0)
        variant = sample["image_noise"].tolist().index(strength)
        image = sample["image_latents"][variant]
        assert all(torch.equal(inputs["noised"][4:, frame], image) for frame in range(FRAMES))
        variants.add(variant)
    assert variants == {0, 1, 2, 3}


def test_wan_sees_a_mask_and_the_grey_clip() -> None:
    recipe, sample = recipe_named("wan-i2v-clip"), cached_sample(recipe_named("wan-i2v-clip"))
    noised = named(recipe, drawn(recipe, quantile=0.5))["noised"]
    assert torch.equal(noised[16:20, 0], torch.ones(4, HEIGHT, WIDTH))
    assert float(noised[16:20, 1:].abs().max()) == 0
    assert torch.equal(noised[20:], sample["image_latents"])


def test_cogvideox_sees_the_first_frame_and_zeros() -> None:
    recipe, sample = recipe_named("cogvideox-i2v"), cached_sample(recipe_named("cogvideox-i2v"))
    noised = named(recipe, drawn(recipe, quantile=0.5))["noised"]
    assert any(torch.equal(noised[16:, 0], image) for image in sample["image_latents"])
    assert float(noised[16:, 1:].abs().max()) == 0


def test_hunyuan_is_told_its_guidance() -> None:
    recipe = recipe_named("hunyuan-video")
    assert float(named(recipe, drawn(recipe))["guidance"]) == 1000
    told = changed(recipe, RecipeChanges(guidance=6.0))
    assert float(named(told, drawn(told))["guidance"]) == 6000


def test_an_odd_clip_is_filled_in_front_for_temporal_patches() -> None:
    recipe = replace(recipe_named("cogvideox-i2v"), temporal_patch=2)
    sample = cached_sample(recipe)
    result = draw(recipe, sample, generator_for(1), empty=empty_caption(recipe), quantile=1e-4)
    assert result.target.shape == (16, FRAMES + 1, HEIGHT, WIDTH)
    noised = named(recipe, result)["noised"]
    assert noised.shape == (32, FRAMES + 1, HEIGHT, WIDTH)
    for frame, clean in enumerate((0, 0, 1, 2)):
        assert torch.allclose(noised[:16, frame], sample["latents"][:, clean], atol=0.3)


def test_an_expert_is_trained_in_its_range_of_shares() -> None:
    recipe = changed(recipe_named("wan"), RecipeChanges(timestep_range=(0.875, 1.0)))
    assert all(875 <= float(drawn(recipe, index).inputs[1]) <= 1000 for index in range(50))


def test_a_sample_of_another_model_is_refused() -> None:
    recipe = recipe_named("hunyuan-video")
    sample = cached_sample(recipe)
    with pytest.raises(VdsgenError, match="pooled_text"):
        draw(recipe, {k: v for k, v in sample.items() if k != "pooled_text"}, generator_for(0))
    with pytest.raises(VdsgenError, match="takes \\(16, frames"):
        draw(recipe, sample | {"latents": torch.zeros(4, 1, 2, 2)}, generator_for(0))
    dropping = changed(recipe, RecipeChanges(condition_dropout=1.0))
    with pytest.raises(VdsgenError, match="empty caption"):
        draw(dropping, sample, generator_for(0))


def test_a_given_first_frame_is_not_noised_and_does_not_count() -> None:
    recipe = changed(recipe_named("wan-ti2v"), RecipeChanges(first_frame_share=0.5))
    sample, given = cached_sample(recipe), 0
    for index in range(60):
        result = drawn(recipe, index)
        noised, timestep = result.inputs[0], result.inputs[1]
        assert timestep.shape == result.weight.shape == (FRAMES,)
        assert float(result.weight.mean()) == pytest.approx(1)
        assert float(timestep[1]) == float(timestep[2]) > 0
        if float(timestep[0]) == 0:
            given += 1
            assert torch.equal(noised[:, 0], sample["latents"][:, 0])
            assert float(result.weight[0]) == 0
            worst = result.target.clone()
            worst[:, 0] += 100
            assert float(recipe_loss(worst[None], (result.target[None], result.weight[None]))) == 0
        else:
            assert float(timestep[0]) == float(timestep[1])
    assert 15 <= given <= 45
    assert drawn(recipe_named("wan-ti2v")).inputs[1].shape == ()
    assert float(drawn(recipe, quantile=0.5).inputs[1][0]) > 0
