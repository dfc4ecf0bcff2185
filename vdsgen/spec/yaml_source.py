"""Reads YAML safely: within limits, without tags, and with the place of every key and value."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from vdsgen.errors import InputError, Problem
from vdsgen.spec.scalars import ScalarError, plain_scalar
from vdsgen.spec.shown import shown
from vdsgen.spec.source import Node, Place, Scalar, Source
from vdsgen.spec.text_file import read_text

if TYPE_CHECKING:
    from collections.abc import Iterator

MAX_DEPTH = 64
MAX_SIZE = 100_000
"""Keys and values in one file, where an alias counts as all that it repeats, and long text as several."""
CHARACTERS_A_VALUE = 100
MAX_PROBLEMS = 50
"""The rest is left for the next try."""


def read_yaml(path: Path) -> Source:
    """The value in a YAML file. Raises InputError for whatever is wrong with the file or its YAML."""
    return Source(parse_yaml(read_text(path), str(path)))


def parse_yaml(text: str, file: str, *, with_lines: bool = True) -> Node:
    """The value in a YAML text; `with_lines` is False where the text stands in no file.

    Events are read one by one and no further than the limits allow, so that deep nesting, alias bombs
    and endless lists cost nothing. Raises InputError with all that is wrong.
    """
    import yaml

    loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)(text)
    reader = _Reader(file, _events(loader), with_lines)
    try:
        root = reader.document()
    except yaml.YAMLError as error:
        raise InputError([*reader.problems, _syntax_problem(error, file, with_lines)]) from None
    finally:
        loader.dispose()
    if reader.problems:
        raise InputError(reader.problems)
    return root


def _events(loader: Any) -> Iterator[Any]:
    while loader.check_event():
        yield loader.get_event()


def _syntax_problem(error: Any, file: str, with_lines: bool) -> Problem:
    what = getattr(error, "problem", None) or getattr(error, "reason", None) or "it cannot be read"
    context = getattr(error, "context", None)
    message = f"not valid YAML: {what}" + (f" ({context})" if context else "")
    remedy = None
    if "cannot start any token" in what:
        remedy = "indent with spaces, not tabs; put text that starts with @, ` or % in quotes"
    elif "mapping values are not allowed" in what:
        remedy = "put text that holds ': ' in quotes, and check the indentation of this line"
    mark = getattr(error, "problem_mark", None)
    if mark is None or not with_lines:
        return Problem(message, file, remedy=remedy)
    return Problem(message, file, mark.line + 1, mark.column + 1, remedy=remedy)


class _Reader:
    """Builds nodes from YAML events, and notes problems as it goes."""

    def __init__(self, file: str, events: Iterator[Any], with_lines: bool) -> None:
        self.file = file
        self.events = events
        self.with_lines = with_lines
        self.problems: list[Problem] = []
        self.anchors: dict[str, tuple[Node, int, int]] = {}
        """Anchor -> the value it names, that value's size, and the depth below it."""
        self.size = 0

    def document(self) -> Node:
        """The file's one document."""
        import yaml

        root: Node | None = None
        for event in self.events:
            if isinstance(event, yaml.DocumentStartEvent):
                if root is not None:
                    raise self.stop(event, "a second document starts here; a file holds one")
                root, _ = self.value(next(self.events), 1)
        if root is None or (root.is_scalar and root.value is None and not self.problems):
            raise InputError([Problem("is empty", self.file)])
        return root

    def value(self, event: Any, depth: int) -> tuple[Node, int]:
        """The value that starts with `event`, and the depth below it."""
        import yaml

        if isinstance(event, yaml.AliasEvent):
            return self.alias(event, depth)
        size_before = self.size
        self.grow(event, 1, depth)
        if event.tag is not None:
            tag = shown(event.tag.replace("tag:yaml.org,2002:", "!!"))
            self.note(event, f"tag {tag} is not read", "write the plain value, without !")
        node, below = Node(self.place(event)), 0
        if isinstance(event, yaml.ScalarEvent):
            node.value = self.scalar(event, depth)
        elif isinstance(event, yaml.SequenceStartEvent):
            below = self.sequence(node, depth)
        else:
            below = self.mapping(node, depth)
        if event.anchor is not None:
            self.anchors[event.anchor] = (node, self.size - size_before, below)
        return node, below

    def alias(self, event: Any, depth: int) -> tuple[Node, int]:
        if event.anchor not in self.anchors:
            self.note(event, f"alias {shown(event.anchor)} has no anchor before it, or is inside its own")
            return Node(self.place(event)), 0
        node, size, below = self.anchors[event.anchor]
        self.grow(event, size, depth + below)
        return node, below

    def scalar(self, event: Any, depth: int) -> Scalar:
        text: str = event.value
        self.grow(event, len(text) // CHARACTERS_A_VALUE, depth)
        if not event.implicit[0]:  # in quotes, or a block: text
            return text
        try:
            return plain_scalar(text)
        except ScalarError as error:
            self.note(event, str(error))
            return None

    def sequence(self, node: Node, depth: int) -> int:
        import yaml

        node.items, deepest = [], 0
        for event in self.events:
            if isinstance(event, yaml.SequenceEndEvent):
                break
            item, below = self.value(event, depth + 1)
            node.items.append(item)
            deepest = max(deepest, below + 1)
        return deepest

    def mapping(self, node: Node, depth: int) -> int:
        import yaml

        node.entries, deepest = {}, 0
        for event in self.events:
            if isinstance(event, yaml.MappingEndEvent):
                break
            key_node, _ = self.value(event, depth + 1)
            child, below = self.value(next(self.events), depth + 1)
            deepest = max(deepest, below + 1)
            key = self.key(event, key_node, node.entries)
            if key is not None:
                node.entries[key] = (self.place(event), child)
        return deepest

    def key(self, event: Any, node: Node, taken: dict[str, tuple[Place, Node]]) -> str | None:
        """The key's text, or None after noting why it cannot be one."""
        key = node.value
        if not node.is_scalar or not isinstance(key, str):
            kind = shown(node.plain())
            self.note(event, f"a key must be text, is {kind}", "put it in quotes if it is meant as text")
        elif key == "<<":
            self.note(event, "merge keys (<<) are not read", "write the keys out")
        elif key in taken:
            line = taken[key][0].line
            first = "" if line is None else f"; it first stands on line {line}"
            self.note(event, f"key {shown(key)} is given twice{first}", "remove one of the two")
        else:
            return key
        return None

    def place(self, event: Any) -> Place:
        if not self.with_lines:
            return Place(self.file)
        return Place(self.file, event.start_mark.line + 1, event.start_mark.column + 1)

    def grow(self, event: Any, size: int, depth: int) -> None:
        self.size += size
        if depth > MAX_DEPTH:
            raise self.stop(event, f"is nested more than {MAX_DEPTH} deep")
        if self.size > MAX_SIZE:
            raise self.stop(event, f"holds over {MAX_SIZE} values (an alias counts as all that it repeats)")

    def note(self, event: Any, message: str, remedy: str | None = None) -> None:
        place = self.place(event)
        self.problems.append(Problem(message, place.file, place.line, place.column, remedy=remedy))
        if len(self.problems) >= MAX_PROBLEMS:
            raise InputError(self.problems)

    def stop(self, event: Any, message: str) -> InputError:
        place = self.place(event)
        return InputError([*self.problems, Problem(message, place.file, place.line, place.column)])
