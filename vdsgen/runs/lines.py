"""A file with an object a line, kept up with."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

from vdsgen.runs.tail import Tail
from vdsgen.runs.values import object_of


class OfStep(Protocol):
    @property
    def step(self) -> int: ...


Item = TypeVar("Item", bound=OfStep)


class Lines(Generic[Item]):
    """`items` are in the order of the file; `look` adds what is new."""

    def __init__(self, path: Path, item_of: Callable[[Mapping[str, Any]], Item | None]) -> None:
        self._tail = Tail(path)
        self._item_of = item_of
        self.items: list[Item] = []
        self.unreadable = 0
        """Whole lines that are none of ours."""
        self.last_values: Mapping[str, Any] = {}
        """Of the last item, as it was written."""

    def look(self) -> bool:
        """Whether anything has changed."""
        lines = self._tail.lines()
        if self._tail.began_anew:
            self.items.clear()
            self.unreadable, self.last_values = 0, {}
        for line in lines:
            values = object_of(line)
            item = None if values is None else self._item_of(values)
            if item is None or values is None:
                self.unreadable += bool(line.strip())
                continue
            self.items.append(item)
            self.last_values = values
        return bool(lines) or self._tail.began_anew
