"""The types of specs in words: what is expected at a key, for messages and remedies."""

from __future__ import annotations

import types
from collections.abc import Iterable, Iterator
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

from pydantic import BaseModel, StringConstraints
from pydantic.fields import FieldInfo

from vdsgen.spec.base import CATALOG_NAME_PATTERN, HOST_NAME_PATTERN, MOST_GIB, NAME_PATTERN, PATH_PATTERN

_TEXTS = {
    NAME_PATTERN: "a name (letters, digits, '.', '_' and '-')",
    HOST_NAME_PATTERN: "a host name",
    PATH_PATTERN: "a path",
    CATALOG_NAME_PATTERN: "a catalogue name",
}
_WORDS = {int: "a whole number", float: "a number", bool: "true or false", str: "text"}


def field_types(model: type[BaseModel]) -> dict[str, Any]:
    """Field name -> its type, with what `Annotated` adds."""
    hints = get_type_hints(model, include_extras=True)
    return {name: hints[name] for name in model.model_fields}


def members(kind: Any) -> list[Any]:
    """The types that a union is made of, without None; a list of one for any other type."""
    if get_origin(kind) is Annotated:
        inner = get_args(kind)[0]
        return members(inner) if _is_union(inner) else [kind]
    if _is_union(kind):
        return [member for member in get_args(kind) if member is not type(None)]
    return [kind]


def bare(kind: Any) -> Any:
    """The type without `Annotated`."""
    return get_args(kind)[0] if get_origin(kind) is Annotated else kind


def as_model(kind: Any) -> type[BaseModel] | None:
    """The model class, if the type is one."""
    kind = bare(kind)
    return kind if isinstance(kind, type) and issubclass(kind, BaseModel) else None


def item_type(kind: Any) -> Any:
    """X of `tuple[X, ...]`, else None."""
    arguments = get_args(bare(kind))
    return arguments[0] if get_origin(bare(kind)) is tuple and arguments else None


def choices(kind: Any) -> list[Any]:
    """All values of the literals in a type."""
    return [
        value for member in members(kind) if get_origin(bare(member)) is Literal for value in get_args(member)
    ]


def describe(kind: Any) -> str:
    """`a whole number above 0`, `one of adamw and lion`, `a catalogue name, or a mapping with ...`."""
    parts = members(kind)
    literals = choices(kind)
    words = [_describe_one(part) for part in parts if get_origin(bare(part)) is not Literal]
    if literals:
        words.insert(0, listed([str(value) for value in literals], "or"))
    return listed(words, "or") if words else "nothing"


def listed(words: Iterable[str], joint: str) -> str:
    """`a, b or c`."""
    words = list(words)
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} {joint} {words[-1]}"


def _describe_one(kind: Any) -> str:
    model = as_model(kind)
    if model is not None:
        required = [name for name, field in model.model_fields.items() if field.is_required()]
        if required:
            return f"a mapping with {listed(required, 'and')}"
        return f"a mapping of {listed(list(model.model_fields)[:4], 'or')}"
    if item_type(kind) is not None:
        return "a list"
    if get_origin(bare(kind)) is dict:
        return "a mapping"
    constraints = list(_constraints(kind))
    for constraint in constraints:
        if isinstance(constraint, StringConstraints) and constraint.pattern in _TEXTS:
            return _TEXTS[str(constraint.pattern)]
    word = _WORDS.get(bare(kind), "a value")
    return f"{word}{_bounds(constraints)}"


def _bounds(constraints: list[Any]) -> str:
    """` above 0`, ` from 0 to 3`, or nothing."""
    above = next((c.gt for c in constraints if hasattr(c, "gt")), None)
    least = next((c.ge for c in constraints if hasattr(c, "ge")), None)
    most = next((c.le for c in constraints if hasattr(c, "le")), None)
    if most is not None and most >= MOST_GIB:
        most = None
    if least is not None and most is not None:
        return f" from {least} to {most}"
    words = []
    if above is not None:
        words.append(f"above {above}")
    if least is not None:
        words.append(f"not below {least}")
    if most is not None:
        words.append(f"at most {most}")
    return f" {listed(words, 'and')}" if words else ""


def _constraints(kind: Any) -> Iterator[Any]:
    for extra in get_args(kind)[1:] if get_origin(kind) is Annotated else ():
        if isinstance(extra, FieldInfo):
            yield from extra.metadata
        else:
            yield extra


def _is_union(kind: Any) -> bool:
    return get_origin(kind) in (Union, types.UnionType)
