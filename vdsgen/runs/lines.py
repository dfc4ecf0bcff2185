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

    def look(self) -> None:
        """Reads what is new, and everything where the file is another one."""
        first = True
        for lines in self._tail.batches():
            if first and self._tail.began_anew:
                self.clear()
            first = False
            for line in lines:
                self._add(line)
        if first and self._tail.began_anew:  # the file is gone
            self.clear()

    def clear(self) -> None:
        self.items.clear()
        self.unreadable = 0

    def _add(self, line: str) -> None:
        values = object_of(line)
        item = None if values is None else self._item_of(values)
        if item is None:
            self.unreadable += bool(line.strip())
        else:
            self.items.append(item)
