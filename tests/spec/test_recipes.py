"""The recipes' figures: where they stand, what they say of a configuration, what experiments change."""

from __future__ import annotations

import importlib.util
from importlib.metadata import version
from pathlib import Path

import pytest

from vdsgen.spec.base import SpecError
from vdsgen.spec.recipes import ALL_RECIPES, recipe_for
from vdsgen.spec.recipes.changes import RecipeChanges, changed
from vdsgen.spec.recipes.markdown import DIFFUSERS_READ, recipes_markdown
from vdsgen.spec.recipes.recipe import AreaShift, FixedShift, Recipe, RootShift, TokenShift

PAGE = Path(__file__).parents[2] / "docs" / "recipes.md"


def test_the_page_is_fresh() -> None:
    assert PAGE.read_text() == recipes_markdown()


@pytest.mark.skipif(
    importlib.util.find_spec("diffusers") is None or version("diffusers") != DIFFUSERS_READ,
    reason="lines of another release",
)
@pytest.mark.parametrize("recipe", ALL_RECIPES, ids=lambda recipe: recipe.name)
def test_the_text_of_each_source_stands_at_its_line(recipe: Recipe) -> None:
    spec = importlib.util.find_spec("diffusers")
    assert spec is not None and spec.origin is not None
    root = Path(spec.origin).parents[1]
    checked = 0
    for source in recipe.sources:
        if source.place.startswith("diffusers/"):
            file, line = source.place.rsplit(":", 1)
            assert source.text
            assert source.text in (root / file).read_text().splitlines()[int(line) - 1], source
            checked += 1
    assert checked >= 5


@pytest.mark.parametrize("recipe", ALL_RECIPES, ids=lambda recipe: recipe.name)
def test_a_recipe_is_whole(recipe: Recipe) -> None:
    """What the first layer takes is drawn, told, or cached."""
    made = {"noised", "timestep"}
    made |= {"guidance"} if recipe.guidance is not None else set()
    made |= {"added_time_ids"} if recipe.micro_conditions else set()
    assert set(recipe.inputs) <= made | set(recipe.cached)
    assert recipe.inputs[:2] == ("noised", "timestep")
    assert recipe.cached[0] == "latents"
    assert bool(recipe.image) == (recipe.image_channels > 0)
    assert [other.name for other in ALL_RECIPES].count(recipe.name) == 1


@pytest.mark.parametrize(
    ("class_name", "config", "name", "channels", "patches"),
    [
        ("WanTransformer3DModel", {"in_channels": 16, "out_channels": 16}, "wan", 0, (1, 2)),
        ("WanTransformer3DModel", {"in_channels": 36, "out_channels": 16}, "wan-i2v", 20, (1, 2)),
        (
            "WanTransformer3DModel",
            {"in_channels": 36, "out_channels": 16, "image_dim": 1280},
            "wan-i2v-clip",
            20,
            (1, 2),
        ),
        ("WanTransformer3DModel", {"in_channels": 48, "out_channels": 48}, "wan-ti2v", 0, (1, 2)),
        ("CogVideoXTransformer3DModel", {"in_channels": 16}, "cogvideox-2b", 0, (1, 2)),
        (
            "CogVideoXTransformer3DModel",
            {"in_channels": 16, "use_rotary_positional_embeddings": True, "patch_size_t": 2},
            "cogvideox",
            0,
            (2, 2),
        ),
        (
            "CogVideoXTransformer3DModel",
            {"in_channels": 32, "out_channels": 16, "use_rotary_positional_embeddings": True},
            "cogvideox-i2v",
            16,
            (1, 2),
        ),
        ("LTXVideoTransformer3DModel", {"patch_size": 1, "patch_size_t": 1}, "ltx-video", 0, (1, 1)),
        ("HunyuanVideoTransformer3DModel", {"guidance_embeds": True}, "hunyuan-video", 0, (1, 2)),
        ("HunyuanVideoTransformer3DModel", {"guidance_embeds": False}, "hunyuan-video-plain", 0, (1, 2)),
        ("MochiTransformer3DModel", {}, "mochi", 0, (1, 2)),
        ("LatteTransformer3DModel", {}, "latte", 0, (1, 2)),
        ("UNetSpatioTemporalConditionModel", {}, "svd", 4, (1, 8)),
    ],
)
def test_a_configuration_says_which_recipe(
    class_name: str, config: dict[str, object], name: str, channels: int, patches: tuple[int, int]
) -> None:
    recipe = recipe_for(class_name, config)
    assert recipe.name == name
    assert recipe.image_channels == channels
    assert (recipe.temporal_patch, recipe.spatial_patch) == patches


def test_shifts() -> None:
    assert FixedShift(3.0).of(1, 1) == 3.0
    wan = AreaShift(3.0, 5.0, 832 * 480)
    assert (wan.of(1, 480 * 832), wan.of(1, 1280 * 720)) == (3.0, 5.0)
    assert RootShift().of(1024, 1) == 2.0
    ltx = TokenShift((1024, 4096), (0.95, 2.05))
    assert ltx.of(1024, 1) == pytest.approx(2.718281828**0.95)
    assert ltx.of(4096, 1) == pytest.approx(2.718281828**2.05)


def by_name(name: str) -> Recipe:
    return next(recipe for recipe in ALL_RECIPES if recipe.name == name)


def test_an_experiment_changes_what_it_names() -> None:
    recipe = by_name("wan")
    assert changed(recipe, None) == recipe
    assert changed(recipe, RecipeChanges()) == recipe
    other = changed(
        recipe,
        RecipeChanges(
            timestep_sampling="uniform", shift=8.0, timestep_range=(0.9, 1.0), condition_dropout=0.2
        ),
    )
    assert other.timesteps.kind == "uniform"
    assert (other.timesteps.low, other.timesteps.high) == (0.9, 1.0)
    assert other.shift == FixedShift(8.0)
    assert other.sampling == recipe.sampling
    assert other.condition_dropout == 0.2
    assert changed(recipe, RecipeChanges(sampling_shift="resolution")).sampling.shift == RootShift()
    assert changed(by_name("hunyuan-video"), RecipeChanges(guidance=6.0)).guidance == 6.0
    told = changed(by_name("svd"), RecipeChanges(frame_rate=12.0, motion_bucket_id=40)).micro_conditions
    assert told is not None
    assert (told.frame_rate, told.motion_bucket_id) == (12.0, 40)


@pytest.mark.parametrize(
    ("name", "changes", "key"),
    [
        ("wan", {"guidance": 6.0}, "guidance"),
        ("wan", {"motion_bucket_id": 40}, "motion_bucket_id"),
        ("wan", {"first_frame_share": 0.5}, "first_frame_share"),
        ("svd", {"timestep_sampling": "uniform"}, "timestep_sampling"),
    ],
)
def test_a_change_that_means_nothing_is_refused(name: str, changes: dict[str, object], key: str) -> None:
    with pytest.raises(SpecError) as caught:
        changed(by_name(name), RecipeChanges.model_validate(changes))
    assert caught.value.key == key


@pytest.mark.parametrize(
    ("class_name", "config", "says"),
    [
        ("WanTransformer3DModel", {"in_channels": 48, "out_channels": 16}, "in_channels is 48"),
        ("WanTransformer3DModel", {"pos_embed_seq_len": 514}, "pos_embed_seq_len"),
        ("HunyuanVideoTransformer3DModel", {"image_condition_type": "token_replace"}, "image_condition_type"),
        ("UNetSpatioTemporalConditionModel", {"in_channels": 12, "out_channels": 4}, "in_channels is 12"),
    ],
)
def test_variants_that_no_recipe_is_of_are_refused(
    class_name: str, config: dict[str, object], says: str
) -> None:
    with pytest.raises(ValueError, match=says):
        recipe_for(class_name, config)
