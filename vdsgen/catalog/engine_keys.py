"""The keys of a DeepSpeed config: what data/deepspeed.json says of the release in its `deepspeed`.

The file is made by `python -m tests.update_engine_schema` from the installed DeepSpeed.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cache
from typing import Any, Literal, NamedTuple

from vdsgen.catalog.load import FOLDER

UnknownKeys = Literal["refused", "dropped", "free"]
"""What a section does with a key that it does not know; `free` sections have no fixed keys."""


class EngineKey(NamedTuple):
    """One key of a section."""

    name: str
    kind: Mapping[str, Any]
    """Its type: a word under `type`; `choices`, `items`, `members`, `optional` and limits where it has them;
    `checked` where the engine raises for another type though no pydantic model holds the key ("pipeline": the
    engine of a PipelineModule alone), `converted` where it does so for what int() does not take."""
    default: Any = None
    section: str | None = None
    """JSON pointer of the section that its value is."""
    deprecated: str | None = None
    """The key to use instead; empty where there is none."""
    moves_value: bool = False
    """Whether the engine moves a deprecated key's value to the new key."""
    removed: str | None = None
    """The engine refuses the key, and says this."""
    read: bool = True
    """Whether anything in the engine reads it."""


class EngineSection(NamedTuple):
    """An object of the config."""

    pointer: str
    unknown_keys: UnknownKeys
    model: str | None
    """The pydantic model that the engine checks it with; None where it is read key by key."""
    keys: Mapping[str, EngineKey]
    """By every name that is taken: ZeRO's stage 3 keys have one with `stage3_` and one without."""


@cache
def engine_data() -> Mapping[str, Any]:
    """The whole file."""
    data: dict[str, Any] = json.loads((FOLDER / "deepspeed.json").read_bytes())
    return data


@cache
def engine_section(pointer: str) -> EngineSection | None:
    """The section at a JSON pointer, "" for the whole config; None where no section is known."""
    data = engine_data()["sections"].get(pointer)
    if data is None:
        return None
    keys: dict[str, EngineKey] = {}
    for name, entry in data["keys"].items():
        kind = dict(entry)
        also = kind.pop("also", None)
        rest = {word: kind.pop(word) for word in EngineKey._fields[2:] if word in kind}
        keys[name] = EngineKey(name, kind, **rest)
        if also is not None:
            keys[also] = keys[name]
    return EngineSection(pointer, data["unknown_keys"], data.get("model"), keys)


def keys_that_are_read(pointer: str) -> frozenset[str]:
    """The keys of a section that the engine reads."""
    section = engine_section(pointer)
    assert section is not None, f"{pointer} is no section of a DeepSpeed config"
    return frozenset(name for name, key in section.keys.items() if key.read and key.removed is None)
