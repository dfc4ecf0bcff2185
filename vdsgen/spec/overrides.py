"""`--set training.steps=100`: values put over those of a file."""

from __future__ import annotations

from collections.abc import Sequence

from vdsgen.errors import InputError, Problem
from vdsgen.spec.shown import shown
from vdsgen.spec.source import Node, Place, Source, dotted
from vdsgen.spec.yaml_source import parse_yaml

_EXAMPLE = "write it as --set training.global_batch_size=16"


def apply_overrides(source: Source, overrides: Sequence[str]) -> None:
    """Puts each `KEY=VALUE` into the source; KEY is dotted, VALUE is YAML on one line.

    Problems with these values later name the override. Raises InputError with every override that cannot
    be read or has no place to go.
    """
    problems: list[Problem] = []
    for override in overrides:
        try:
            _apply(source, override)
        except InputError as error:
            problems += error.problems
    if problems:
        raise InputError(problems)


def _apply(source: Source, override: str) -> None:
    key, equals, text = override.partition("=")
    file = f"--set {shown(override)[1:-1]}"
    parts = key.strip().split(".")
    if not equals or not all(parts):
        raise InputError([Problem("is not KEY=VALUE with a dotted key", file, remedy=_EXAMPLE)])
    place = Place(file)
    value = parse_yaml(text, file, with_lines=False) if text.strip() else Node(place)
    node = source.root
    for depth, part in enumerate(parts[:-1], start=1):
        if node.entries is None:
            break
        if part not in node.entries or node.entries[part][1].plain() is None:
            node.entries[part] = (place, Node(place, entries={}))
        at, below = node.entries[part]
        # A copy: the same mapping may stand in other places too, by alias.
        copy = Node(
            below.place, below.value, below.items, None if below.entries is None else {**below.entries}
        )
        node.entries[part] = (at, copy)
        node = copy
        if node.entries is None:
            under, whole = dotted(parts[:depth]), shown(node.plain())
            message = f"has no place: {under} is {whole}, not a mapping"
            raise InputError([Problem(message, file, remedy=f"set {under} itself: --set '{under}={{...}}'")])
    if node.entries is None:
        raise InputError([Problem("has no place: the file holds no mapping", file)])
    node.entries[parts[-1]] = (place, value)
