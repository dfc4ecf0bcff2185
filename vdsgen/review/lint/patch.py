"""JSON patches (RFC 6902) put into a text: what they do not touch stays as it is, byte for byte."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from typing import Any

from vdsgen.review.lint.document import Document, Entry, Node, Path
from vdsgen.review.lint.finding import Finding, Operation
from vdsgen.review.lint.reader import read_document


class PatchError(Exception):
    """An operation on a key that is not there, or that is there already."""


def patched(document: Document, operations: Iterable[Operation]) -> Document:
    """The document after all operations. Raises PatchError where one of them does not fit."""
    for operation in operations:
        path = parts(operation["path"])
        if operation["op"] == "remove":
            text = _removed(document, path)
        elif operation["op"] == "replace":
            text = _replaced(document, path, operation["value"])
        elif operation["op"] == "add":
            text = _added(document, path, operation["value"])
        else:
            assert operation["op"] == "move", f"lint makes no {operation['op']}"
            text = _renamed(document, parts(operation["from"]), path)
        document = read_document(text.encode("utf-8", "surrogatepass"), document.file)
    return document


def all_fixes(document: Document, findings: Iterable[Finding]) -> tuple[Document, list[Operation]]:
    """The document with every fix that fits, and the operations of those: one whose keys an earlier fix has
    changed already is left out."""
    done: list[Operation] = []
    renames_first = sorted(findings, key=lambda finding: not any(one["op"] == "move" for one in finding.fix))
    for finding in renames_first:
        if any(one["op"] == "add" and document.node(parts(one["path"])) is not None for one in finding.fix):
            continue  # it is there by now
        try:
            after = patched(document, finding.fix)
        except PatchError:
            continue
        document = after
        done += finding.fix
    return document, done


def parts(pointer: str) -> Path:
    """The keys of a JSON pointer."""
    return tuple(part.replace("~1", "/").replace("~0", "~") for part in pointer.split("/")[1:])


def _place(document: Document, path: Path) -> tuple[Node, int]:
    """The object and the number of the entry in it. Raises PatchError."""
    parent = document.node(path[:-1])
    for number, entry in reversed(list(enumerate((parent.entries or []) if parent is not None else []))):
        if entry.key == path[-1]:
            assert parent is not None, "it has entries"
            return parent, number
    raise PatchError(f"no key {path}")


def _removed(document: Document, path: Path) -> str:
    parent, number = _place(document, path)
    entries = parent.entries or []
    entry, text = entries[number], document.text
    start, end = entry.start, entry.value.end
    if entry.comma is not None:
        end = entry.comma + 1
    elif number > 0:
        before = entries[number - 1].comma
        start = start if before is None else before
        return text[:start] + text[end:]
    # Together with the line, where nothing else stands on it.
    before_on_line = re.search(r"[^\S\r\n]*\Z", text[:start])
    assert before_on_line is not None, "it may be empty"
    rest = re.match(r"[^\S\r\n]*(\r\n|\r|\n)", text[end:])
    line_start = before_on_line.start()
    if rest is not None and (line_start == 0 or text[line_start - 1] in "\r\n"):
        return text[:line_start] + text[end + rest.end() :]
    blank = re.match(r"[^\S\r\n]*", text[end:])
    return text[:start] + text[end + (blank.end() if blank else 0) :]


def _replaced(document: Document, path: Path, value: Any) -> str:
    parent, number = _place(document, path)
    node = (parent.entries or [])[number].value
    return document.text[: node.start] + _written(value, None, "") + document.text[node.end :]


def _renamed(document: Document, path: Path, new: Path) -> str:
    if path[:-1] != new[:-1]:
        raise PatchError("lint moves keys within their object")
    parent, number = _place(document, path)
    if any(entry.key == new[-1] for entry in parent.entries or []):
        raise PatchError(f"{new} is there")
    entry = (parent.entries or [])[number]
    return document.text[: entry.start] + json.dumps(new[-1]) + document.text[entry.key_end :]


def _added(document: Document, path: Path, value: Any) -> str:
    parent = document.node(path[:-1])
    if parent is None or parent.entries is None:
        raise PatchError(f"no object {path[:-1]}")
    if any(entry.key == path[-1] for entry in parent.entries):
        return _replaced(document, path, value)
    text, key = document.text, json.dumps(path[-1])
    if not parent.entries:
        if not text.startswith("{", parent.start):
            return text + f"{key}: {_written(value, None, '')}\n"
        inside = f"{key}: {_written(value, None, '')}"
        return text[: parent.start + 1] + inside + text[parent.end - 1 :]
    last = parent.entries[-1]
    indent = _indent(document, last)
    new = f"{key}: {_written(value, indent, _unit(document))}"
    between = " " if indent is None else f"\n{indent}"
    at = last.value.end
    if last.comma is not None:
        return text[: last.comma + 1] + between + new + text[last.comma + 1 :]
    return text[:at] + "," + between + new + text[at:]


def _indent(document: Document, entry: Entry) -> str | None:
    """The blanks before an entry that starts its line; None where it does not."""
    line_start = document.line_starts[document.place(entry.start).line - 1]
    before = document.text[line_start : entry.start]
    return before if not before.strip() else None


def _unit(document: Document) -> str:
    """How far the file's first level is indented."""
    entries = document.root.entries
    return (_indent(document, entries[0]) if entries else None) or "  "


def _written(value: Any, indent: str | None, unit: str) -> str:
    if indent is None or not isinstance(value, dict) or not value:
        return json.dumps(value)
    lines = json.dumps(value, indent=unit or 2).split("\n")
    return ("\n" + indent).join(lines)
