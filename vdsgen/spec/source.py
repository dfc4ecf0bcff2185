"""A file as people wrote it: plain values, each with the place where it stands."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from vdsgen.errors import Problem
from vdsgen.spec.shown import shown_key

KeyPath = tuple[str | int, ...]
"""`("pools", 0, "gpu")`, which people read as `pools[0].gpu`."""

Scalar = str | int | float | bool | None


class Place(NamedTuple):
    """Where something was written; line and column count from 1."""

    file: str
    line: int | None = None
    column: int | None = None


@dataclass(slots=True)
class Node:
    """A value and its place. `entries` maps a key to the key's own place and its value."""

    place: Place
    value: Scalar = None
    items: list[Node] | None = None
    entries: dict[str, tuple[Place, Node]] | None = None

    @property
    def is_scalar(self) -> bool:
        return self.items is None and self.entries is None

    def plain(self) -> object:
        """Dictionaries, lists and scalars."""
        if self.entries is not None:
            return {key: child.plain() for key, (_, child) in self.entries.items()}
        if self.items is not None:
            return [item.plain() for item in self.items]
        return self.value


@dataclass(slots=True)
class Source:
    """One input: the values of a file, with `--set` overrides put in."""

    root: Node

    def find(self, path: Sequence[str | int]) -> Node | None:
        """The value at a path, or None where nothing is written."""
        node: Node | None = self.root
        for part in path:
            step = _step(node, part) if node is not None else None
            node = step[1] if step else None
        return node

    def place_of_key(self, path: Sequence[str | int]) -> Place:
        """Where the last key of the path was written; the nearest written parent's where it is missing."""
        place, node = self.root.place, self.root
        for part in path:
            step = _step(node, part)
            if step is None:
                break
            place, node = step
        return place

    def place_of_value(self, path: Sequence[str | int]) -> Place:
        """Where the value starts. A block of keys below its key counts as standing at the key."""
        node = self.find(path)
        return node.place if node is not None and node.is_scalar else self.place_of_key(path)

    def problem(
        self, path: Sequence[str | int], message: str, *, remedy: str | None = None, at_key: bool = False
    ) -> Problem:
        """A problem with the value at `path` (or with its key), at its place."""
        place = self.place_of_key(path) if at_key else self.place_of_value(path)
        return Problem(message, place.file, place.line, place.column, dotted(path) or None, remedy)


def _step(node: Node, part: str | int) -> tuple[Place, Node] | None:
    """The place of the key (of an item: the item's own) and the value one step down."""
    if isinstance(part, str):
        return (node.entries or {}).get(part)
    if node.items is None or not 0 <= part < len(node.items):
        return None
    return node.items[part].place, node.items[part]


def dotted(path: Sequence[str | int]) -> str:
    """`("pools", 0, "gpu")` as `pools[0].gpu`."""
    text = ""
    for part in path:
        if isinstance(part, int):
            text += f"[{part}]"
        else:
            text += f".{shown_key(part)}" if text else shown_key(part)
    return text


def key_path(text: str) -> KeyPath:
    """`pools[0].gpu` as `("pools", 0, "gpu")`: the inverse of `dotted` for keys that specs have."""
    parts: list[str | int] = []
    for name in text.split("."):
        head, *indices = name.split("[")
        if head:
            parts.append(head)
        parts += [int(index.removesuffix("]")) for index in indices]
    return tuple(parts)
