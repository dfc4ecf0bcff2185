"""Types of a DeepSpeed config's values: what pydantic makes of a value, and words for what it expects.

The engine's models are pydantic's in its lax mode, and so are the types built here: the same text passes
for a number, and the same number for true.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from enum import Enum
from functools import cache
from typing import Any

WORDS = {
    "bool": "true or false",
    "int": "a whole number",
    "float": "a number",
    "str": "text",
    "path": "a path",
    "list": "an array",
    "dict": "an object",
    "section": "an object",
    "object": "anything",
    "no JSON value": "nothing that JSON can hold",
}
LIMITS = {"gt": "above", "ge": "of at least", "lt": "below", "le": "of at most"}
Kind = Mapping[str, Any]


class WrongValueError(Exception):
    """A value that is not of its type."""


def coerced(kind: Kind, value: Any) -> Any:
    """What the engine's pydantic makes of the value. Raises WrongValueError."""
    from pydantic import ValidationError

    if kind.get("no_bool") and isinstance(value, bool):
        raise WrongValueError
    if kind.get("text_is_one") and isinstance(value, str):
        return [value]
    if kind.get("int_first") and isinstance(value, str) and not re.fullmatch(r"\s*[-+]?[0-9_]+\s*", value):
        raise WrongValueError  # Python's int() reads it first
    try:
        made = _adapter(json.dumps(kind)).validate_python(value)
    except (ValidationError, OverflowError) as error:
        raise WrongValueError from error
    if kind.get("finite") and not math.isfinite(made):
        raise WrongValueError
    return made.value if isinstance(made, Enum) else made


@cache
def _adapter(kind: str) -> Any:
    from pydantic import TypeAdapter

    return TypeAdapter(_annotation(json.loads(kind)))


def _annotation(kind: Kind) -> Any:
    from pathlib import Path
    from typing import Annotated, Literal, Optional, Union

    from pydantic import Field

    word = kind["type"]
    made: Any
    if word == "choice":
        made = Literal[tuple(kind["choices"])]
    elif word == "integer choice":
        make: Any = Enum  # its members are known when the data is read
        made = make("choice", {f"value_{choice}": choice for choice in kind["choices"]}, type=int)
    elif word == "union":
        made = Union[tuple(_annotation(member) for member in kind["members"])]  # noqa: UP007
    elif word == "list":
        made = list[_annotation(kind["items"])] if "items" in kind else list[Any]  # type: ignore[misc]
    else:
        plain = {"bool": bool, "int": int, "float": float, "str": str, "path": Path, "dict": dict[str, Any]}
        made = {**plain, "object": Any, "no JSON value": Literal["\0"]}[word]
    limits = {word: kind[word] for word in LIMITS if word in kind}
    if limits:
        made = Annotated[made, Field(**limits)]
    return Optional[made] if kind.get("optional") else made  # noqa: UP045


def is_plainly(kind: Kind, value: Any) -> bool:
    """Whether the value is of its type as JSON has it, without any coercion."""
    word = kind["type"]
    if word == "object":
        return True
    if value is None:
        return bool(kind.get("optional"))
    if word == "union":
        return any(is_plainly(member, value) for member in kind["members"])
    if word == "choice":
        choices = kind["choices"]
        if isinstance(value, str) and kind.get("any_case"):
            return value.lower() in [choice.lower() for choice in choices]
        return isinstance(value, str) and value in choices
    if word == "bool":
        return isinstance(value, bool) or (bool(kind.get("or_number")) and value in (0, 1))
    if word in ("int", "integer choice", "float"):
        number = (isinstance(value, float) and word == "float") or isinstance(value, int)
        return number and not isinstance(value, bool) and _within(kind, value)
    if word == "list":
        item = kind.get("items")
        return isinstance(value, list) and (item is None or all(is_plainly(item, part) for part in value))
    return isinstance(value, {"str": str, "path": str, "dict": dict, "section": dict}.get(word, ()))


def _within(kind: Kind, value: float) -> bool:
    return not (
        ("gt" in kind and not value > kind["gt"])
        or ("ge" in kind and not value >= kind["ge"])
        or ("lt" in kind and not value < kind["lt"])
        or ("le" in kind and not value <= kind["le"])
        or ("choices" in kind and value not in kind["choices"])
    )


def taken(kind: Kind, value: Any) -> Any:
    """What the engine's own code, which has no types, makes of a value that is not plainly of its type: true
    is 1, and what is asked by `if` is true or false. Raises WrongValueError where that is not known."""
    word = kind["type"]
    if word == "bool" and not kind.get("checked"):
        return bool(value)
    if word in ("int", "float") and isinstance(value, bool) and _within(kind, value):
        return int(value)
    if kind.get("converted"):
        try:
            return int(value)
        except (TypeError, ValueError, OverflowError) as error:
            raise WrongValueError from error
    raise WrongValueError


def expected(kind: Kind) -> str:
    """`a whole number above 0`, `'none', 'cpu' or 'nvme'`."""
    if kind["type"] == "union":
        words = [expected({**member}) for member in kind["members"]]
    elif "choices" in kind:
        words = [json.dumps(choice) for choice in kind["choices"]]
    else:
        words = [WORDS[kind["type"]]]
        limits = [f"{text} {kind[limit]:g}" for limit, text in LIMITS.items() if limit in kind]
        if limits:
            words[0] += " " + " and ".join(limits)
        if kind["type"] == "list" and "items" in kind:
            words[0] += f" of {expected(kind['items'])}"
    if kind.get("optional"):
        words.append("null")
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} or {words[-1]}"


def written(value: Any) -> str:
    """A value as JSON, cut where it is long."""
    text = json.dumps(value, ensure_ascii=True)
    return text if len(text) <= 60 else f"{text[:57]}..."
