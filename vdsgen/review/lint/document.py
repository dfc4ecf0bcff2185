"""A DeepSpeed JSON as it stands in its file: every key and value with its place."""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, NamedTuple

Scalar = str | int | float | bool | None
Path = tuple[str | int, ...]


@dataclass(slots=True)
class Node:
    """A value. `start` and `end` are offsets in the text; `end` is behind its last character."""

    start: int
    end: int
    value: Scalar = None
    """Where it is neither an object nor an array."""
    entries: list[Entry] | None = None
    items: list[Node] | None = None
    quoteless: bool = False
    """Text without quotes, as Hjson has it."""

    def plain(self) -> Any:
        """Dictionaries, lists and scalars; of a key that is given twice the last value, as Python keeps."""
        if self.entries is not None:
            return {entry.key: entry.value.plain() for entry in self.entries}
        if self.items is not None:
            return [item.plain() for item in self.items]
        return self.value


@dataclass(slots=True)
class Entry:
    """A key and its value in an object."""

    key: str
    start: int
    key_end: int
    value: Node
    comma: int | None = None
    """Offset of the comma behind the value, if there is one."""


class Place(NamedTuple):
    """Line and column, both from 1; `length` is how much of the line is meant."""

    line: int
    column: int
    length: int = 1


class Looseness(NamedTuple):
    """Something that DeepSpeed's reader takes and JSON does not have."""

    what: str
    offset: int


@dataclass
class Document:
    """A file that could be read."""

    file: str
    text: str
    root: Node
    loose: list[Looseness] = field(default_factory=list)

    @cached_property
    def line_starts(self) -> list[int]:
        return [0] + [match.end() for match in re.finditer(r"\r\n|\r|\n", self.text)]

    @cached_property
    def plain(self) -> dict[str, Any]:
        plain = self.root.plain()
        assert isinstance(plain, dict), "the reader takes objects only"
        return plain

    def place(self, start: int, end: int | None = None) -> Place:
        """Of a stretch of text; its length ends with its line."""
        line = bisect_right(self.line_starts, start)
        length = 1 if end is None else end - start
        left = len(self.line(line)) - (start - self.line_starts[line - 1])
        return Place(line, start - self.line_starts[line - 1] + 1, max(1, min(length, left)))

    def line(self, number: int) -> str:
        """A line's text, without its end."""
        start = self.line_starts[number - 1]
        end = self.line_starts[number] if number < len(self.line_starts) else len(self.text)
        return self.text[start:end].rstrip("\r\n")

    def entry(self, path: Sequence[str | int]) -> Entry | None:
        """The last entry of this path; None where nothing is written there, or an item of an array."""
        node: Node | None = self.root
        found: Entry | None = None
        for part in path:
            found = None
            if isinstance(part, int):
                items = node.items if node is not None else None
                node = items[part] if items is not None and part < len(items) else None
            else:
                entries = (node.entries or []) if node is not None else []
                found = next((entry for entry in reversed(entries) if entry.key == part), None)
                node = found.value if found is not None else None
            if node is None:
                return None
        return found

    def node(self, path: Sequence[str | int]) -> Node | None:
        """The value at a path, or None where nothing is written."""
        node: Node | None = self.root
        for part in path:
            if node is None:
                return None
            if isinstance(part, int):
                node = node.items[part] if node.items is not None and part < len(node.items) else None
            else:
                entries = node.entries or []
                node = next((entry.value for entry in reversed(entries) if entry.key == part), None)
        return node

    def nearest(self, path: Sequence[str | int], *, at_key: bool = False) -> Place:
        """Where the value at `path` is written, or its key; the nearest written parent's key where it is
        missing, and the beginning of the file where there is none."""
        parts = tuple(path)
        entry, node = self.entry(parts), self.node(parts)
        if parts and entry is not None and (at_key or node is None or node.value is None):
            return self.place(entry.start, entry.key_end)
        if parts and node is not None:
            return self.place(node.start, node.end)
        return self.nearest(parts[:-1], at_key=True) if parts else self.place(self.root.start)


def pointer(path: Sequence[str | int]) -> str:
    """The JSON pointer (RFC 6901) of a path."""
    return "".join("/" + str(part).replace("~", "~0").replace("/", "~1") for part in path)
