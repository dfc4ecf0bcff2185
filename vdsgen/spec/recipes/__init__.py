"""Training recipes of the diffusers families: what plans and pages may know of them, without torch."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from vdsgen.spec.recipes import cogvideox, hunyuan, latte, ltx, mochi, svd, wan
from vdsgen.spec.recipes.changes import changed
from vdsgen.spec.recipes.recipe import Recipe

if TYPE_CHECKING:
    from vdsgen.spec.diffusers_model import DiffusersModel
    from vdsgen.spec.experiment import Experiment

_FAMILIES: dict[str, Callable[[Mapping[str, Any]], Recipe]] = {
    family.ALL[0].class_name: family.recipe_of for family in (wan, cogvideox, ltx, hunyuan, mochi, latte, svd)
}

CLASSES = tuple(_FAMILIES)
"""Of diffusers, that can be trained."""

ALL_RECIPES: tuple[Recipe, ...] = (
    *wan.ALL,
    *cogvideox.ALL,
    *ltx.ALL,
    *hunyuan.ALL,
    *mochi.ALL,
    *latte.ALL,
    *svd.ALL,
)
"""Every variant, as docs/recipes.md lists them."""


def recipe_for(class_name: str, config: Mapping[str, Any]) -> Recipe:
    """The recipe of a diffusers class with this configuration.

    Raises KeyError for a class without one, ValueError for a variant of a class that no recipe is of.
    """
    recipe = _FAMILIES[class_name](config)
    given, shown = recipe.autoencoder.channels + recipe.image_channels, config.get("in_channels")
    if shown is not None and int(shown) != given:
        raise ValueError(f"in_channels is {shown}; no recipe gives it so many ({recipe.summary}: {given})")
    return recipe


def trained_recipe(model: DiffusersModel, experiment: Experiment) -> Recipe:
    """What an experiment trains a model with: the family's recipe with the experiment's changes. A module
    that is told frames a second is told `data.frame_rate` where clips are sampled at one.

    Raises SpecError, with a key below the changes, for one that means nothing to the family.
    """
    recipe, sampled_at = recipe_for(model.class_name, model.config), experiment.data.frame_rate
    if recipe.micro_conditions is not None and sampled_at is not None:
        told = replace(recipe.micro_conditions, frame_rate=sampled_at)
        recipe = replace(recipe, micro_conditions=told)
    return changed(recipe, experiment.training.diffusion.recipe)
