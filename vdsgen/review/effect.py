"""What a change of one setting means: what it affects, and what becomes of the loss curve."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

Group = Literal["numerics", "memory", "speed", "housekeeping", "unknown", "none"]
GROUPS: tuple[Group, ...] = ("numerics", "memory", "speed", "housekeeping", "unknown", "none")
"""In the order they are shown. `unknown` is for keys that vdsgen does not know, `none` for what is written
otherwise and comes to the same."""
Curve = Literal["identical", "rounding", "different"]
CURVES: tuple[Curve, ...] = ("identical", "rounding", "different")
"""What becomes of losses, the least first. rounding: equal in exact arithmetic; sums have another order, or
what is exchanged is rounded otherwise."""

ANYTHING = "*"


@dataclass(frozen=True, slots=True)
class Effect:
    """What a change of one key means."""

    affects: tuple[Group, ...]
    """The first is the group it is shown in."""
    curve: Curve
    mirrors: tuple[str, ...] = ()
    """Keys that say the same in another file: where one of them changed too, this change adds nothing."""
    comes_with: tuple[str, ...] = ()
    """Keys that decide whether this one is there at all: where one of them changed, that this key comes or
    goes adds nothing."""


def effects(
    names: str,
    *affects: Group,
    curve: Curve | None = None,
    mirrors: tuple[str, ...] = (),
    comes_with: tuple[str, ...] = (),
) -> Mapping[str, Effect]:
    """The same effect for each of the names. Without `curve`, numerics are another curve, and nothing else
    is."""
    found: Curve = curve or ("different" if "numerics" in affects else "identical")
    return {name: Effect(affects, found, mirrors, comes_with) for name in names.split()}


def in_file(file: str, *parts: Mapping[str, Effect]) -> dict[str, Effect]:
    return {f"{file}:{key}": effect for part in parts for key, effect in part.items()}


def effect_in(table: Mapping[str, Effect], key: str) -> Effect | None:
    """Of the key itself, else of the longest pattern that fits it."""
    if key in table:
        return table[key]
    fitting = [pattern for pattern in table if fits(key, pattern)]
    return table[max(fitting, key=len)] if fitting else None


def fits(key: str, pattern: str) -> bool:
    """Whether `pattern` is the key, ends in `.*` where the key goes on, or is `*`."""
    return pattern in (key, ANYTHING) or (pattern.endswith(".*") and key.startswith(pattern[:-1]))
