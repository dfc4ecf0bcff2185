"""Which keys ds_config.json holds, in words and in repairs."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from vdsgen.rules.facts import Facts
from vdsgen.rules.rule import REMOVE, Change, Fix


def present(facts: Facts, keys: Iterable[str]) -> tuple[str, ...]:
    """Those of these JSON pointers that the file holds, in order."""
    given = facts.given
    return () if given is None else tuple(key for key in keys if key in given)


def named(keys: Iterable[str]) -> str:
    """JSON pointers as people write keys: a.b, a.c and d."""
    *first, last = [key.removeprefix("/").replace("/", ".") for key in keys]
    return f"{', '.join(first)} and {last}" if first else last


def are(keys: tuple[str, ...]) -> str:
    """The keys and their verb."""
    return f"{named(keys)} {'are' if len(keys) > 1 else 'is'}"


def below(section: str, names: str) -> tuple[str, ...]:
    """JSON pointers of keys of one section, names separated by blanks."""
    return tuple(f"{section}/{name}" for name in names.split())


def removal(*keys: str) -> Fix:
    """Takes out those of these keys that the file holds."""

    def fix(facts: Facts) -> tuple[Change, ...]:
        return tuple((key, REMOVE) for key in present(facts, keys))

    return fix


def setting(key: str, value: Any) -> Fix:
    """Sets one key."""

    def fix(facts: Facts) -> tuple[Change, ...]:  # noqa: ARG001
        return ((key, value),)

    return fix
