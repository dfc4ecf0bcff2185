"""Where a union allows several kinds of mapping: the one that was evidently meant."""

from __future__ import annotations

from typing import Any, Literal, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from vdsgen.spec.describe import as_model, bare, choices, members
from vdsgen.spec.source import Node


def chosen_model(kind: Any, node: Node | None) -> type[BaseModel] | None:
    """The model of a type that `node`'s mapping was meant for, or None where that cannot be said.

    With a discriminating key (`codec`, `family`) its value decides, else the model with most of the
    keys that are there, of those first that have all they need.
    """
    models = [model for member in members(kind) if (model := as_model(member))]
    if node is None or node.entries is None or not models:
        return None
    if len(models) == 1:
        return models[0]
    keys = set(node.entries)
    for model in models:
        tags = _tags(model) & keys
        if any(node.entries[key][1].value in choices(bare_field(model, key)) for key in tags):
            return model
    best = max(models, key=lambda model: _closeness(model, models, keys))
    return best if keys & set(best.model_fields) else None


def _closeness(
    model: type[BaseModel], models: list[type[BaseModel]], keys: set[str]
) -> tuple[bool, int, int]:
    """Whether the model misses nothing; how many of `keys` it has, those that only it has counted twice;
    how few it misses."""
    missing = sum(field.is_required() and name not in keys for name, field in model.model_fields.items())
    has = len(keys & set(model.model_fields)) + len(keys & _telling(model, models))
    return has > 0 and not missing, has, -missing


def is_label_of(label: object, model: type[BaseModel]) -> bool:
    """Whether pydantic's name of a branch, in an error's location, is this model's."""
    return isinstance(label, str) and (label == model.__name__ or label.endswith(f", {model.__name__}]"))


def discriminator(kind: Any) -> str | None:
    """The key that tells the branches apart, if the type names one."""
    for extra in getattr(kind, "__metadata__", ()):
        if isinstance(extra, FieldInfo) and isinstance(extra.discriminator, str):
            return extra.discriminator
    return None


def bare_field(model: type[BaseModel], key: str) -> Any:
    return model.model_fields[key].annotation


def _tags(model: type[BaseModel]) -> set[str]:
    """Keys with one possible value, such as `family: vdt`."""
    return {
        name
        for name in model.model_fields
        if get_origin(bare(bare_field(model, name))) is Literal and len(choices(bare_field(model, name))) == 1
    }


def _telling(model: type[BaseModel], models: list[type[BaseModel]]) -> set[str]:
    """Keys that the other branches do not have."""
    others = {name for other in models if other is not model for name in other.model_fields}
    return set(model.model_fields) - others
