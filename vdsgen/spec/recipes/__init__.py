"""Training recipes of the diffusers families: what plans and pages may know of them, without torch."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from vdsgen.spec.recipes import cogvideox, hunyuan, latte, ltx, mochi, svd, wan
from vdsgen.spec.recipes.changes import RecipeChanges, changed
from vdsgen.spec.recipes.recipe import Recipe

if TYPE_CHECKING:
    from vdsgen.spec.diffusers_model import DiffusersModel

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


def trained_recipe(model: DiffusersModel, changes: RecipeChanges | None) -> Recipe:
    """What an experiment trains a model with: the family's recipe with the experiment's changes.

    Raises SpecError, with a key below the changes, for one that means nothing to the family.
    """
    return changed(recipe_for(model.class_name, model.config), changes)
