"""Reads JSON as DeepSpeed does, which is as Hjson, and knows the place of everything.

DeepSpeed reads a config file with `hjson.load` (runtime/config.py:430): comments, commas that are missing
or too many, keys and text without quotes all pass. The grammar here is that of hjson 3.1.0 (decoder.py):
what it takes and what it makes of it is the same, and fuzz tests compare the two. Whatever is no JSON is
noted, since Transformers and Accelerate read the same file with Python's `json`.
"""

from __future__ import annotations

import math
import re

from vdsgen.errors import InputError, Problem
from vdsgen.review.lint.document import Document, Entry, Looseness, Node

DEEPEST = 100
"""Objects and arrays inside each other. hjson itself ends in Python's RecursionError at about 330."""
MOST_DIGITS = 4300
"""Of an integer: Python refuses to read longer ones (sys.get_int_max_str_digits)."""
SPACE = " \t\n\r"
PUNCTUATORS = "{}[],:"
ESCAPES = {'"': '"', "'": "'", "\\": "\\", "/": "/", "b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t"}
NUMBER = re.compile(r"[\t ]*(-?(?:0|[1-9]\d*))(\.\d+)?([eE][-+]?\d+)?[\t ]*", re.ASCII)
LINE_END = re.compile(r"[\r\n]|\Z")
CHUNK = re.compile(r"(.*?)(['\"\\\x00-\x1f])", re.DOTALL)
VALUE_END = re.compile(r"[\r\n,}\]#]|/[/*]|\Z")


class NoJsonError(Exception):
    """What is wrong, the offset of it, and what to do."""

    def __init__(self, message: str, offset: int, remedy: str | None = None) -> None:
        super().__init__(message)
        self.message, self.offset, self.remedy = message, offset, remedy


def read_document(content: bytes, file: str) -> Document:
    """Raises InputError with line and column where DeepSpeed could not read it, or it is no object."""
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        column = error.start - content.rfind(b"\n", 0, error.start)
        message = f"no JSON: byte {content[error.start]:#04x} is no UTF-8"
        raise InputError([Problem(message, file, line, column, remedy="save the file as UTF-8")]) from error
    reader = _Reader(text)
    document = Document(file, text, Node(0, 0), reader.loose)
    try:
        document.root = reader.document()
        if document.root.entries is None:
            kind = "an array" if document.root.items is not None else "one value"
            raise NoJsonError(
                f"{kind}, and a DeepSpeed config is an object", document.root.start, "put it in {}"
            )
    except NoJsonError as error:
        place = document.place(min(error.offset, len(text)))
        remedy = _swallowed(document) or error.remedy
        problem = Problem(f"no JSON: {error.message}", file, place.line, place.column, remedy=remedy)
        raise InputError([problem]) from error
    return document


def _swallowed(document: Document) -> str | None:
    """Where text without quotes, which goes on to the end of its line, may have taken commas with it."""
    for loose in reversed(document.loose):
        rest = document.line(document.place(loose.offset).line)[document.place(loose.offset).column - 1 :]
        if loose.what == "text without quotes" and any(char in rest for char in ',:}"]'):
            place = document.place(loose.offset)
            return f"see line {place.line}, column {place.column}: is a quote or a comma missing there?"
    return None


class _Reader:
    def __init__(self, text: str) -> None:
        self.text = text
        self.loose: list[Looseness] = []
        self.depth = 0

    def document(self) -> Node:
        start = 0
        if self.text.startswith("\ufeff"):
            self.note("a byte order mark", 0)
            start = 1
        offset = self.skip(start)
        if start == 0 and offset == len(self.text):
            return Node(0, 0, entries=[])
        if self.text[offset : offset + 1] in ("{", "["):
            root = self.value(offset)
        else:
            root = self.without_braces(offset)
        end = self.skip(root.end)
        if end != len(self.text):
            raise NoJsonError(
                "something follows the end of the object", end, "remove it, or a brace before it"
            )
        return root

    def without_braces(self, offset: int) -> Node:
        noted = len(self.loose)
        try:
            self.note("no braces around the whole", offset)
            return self.object(offset, braces=False)
        except NoJsonError as error:
            del self.loose[noted:]
            try:
                return self.value(offset)
            except NoJsonError:
                raise error from None

    def note(self, what: str, offset: int) -> None:
        self.loose.append(Looseness(what, offset))

    def skip(self, offset: int) -> int:
        """Behind white space and comments."""
        text = self.text
        while True:
            while offset < len(text) and text[offset] in SPACE:
                offset += 1
            if text.startswith(("#", "//"), offset):
                self.note("a comment", offset)
                match = LINE_END.search(text, offset)
                assert match is not None, "every text ends"
                offset = match.start()
            elif text.startswith("/*", offset):
                self.note("a comment", offset)
                end = text.find("*/", offset + 2)
                if end < 0:
                    raise NoJsonError("a comment without an end", offset, "close it with */")
                offset = end + 2
            else:
                return offset

    def value(self, offset: int) -> Node:
        text = self.text
        if offset >= len(text):
            raise NoJsonError("the file ends where a value is expected", offset, "is it cut off?")
        if text.startswith("'''", offset):
            return self.lines(offset)
        if text[offset] in "\"'":
            value, end = self.string(offset)
            return Node(offset, end, value)
        if text[offset] in "{[":
            self.depth += 1
            if self.depth > DEEPEST:
                raise NoJsonError(f"nested deeper than {DEEPEST}", offset, "no DeepSpeed config is")
            node = self.object(offset + 1) if text[offset] == "{" else self.array(offset)
            node.start = offset
            self.depth -= 1
            return node
        return self.bare(offset)

    def object(self, offset: int, *, braces: bool = True) -> Node:
        text, entries = self.text, list[Entry]()
        node = Node(offset, offset, entries=entries)
        offset = self.skip(offset)
        if braces and text.startswith("}", offset):
            node.end = offset + 1
            return node
        while True:
            key, start, key_end = self.key(offset)
            offset = self.skip(key_end)
            if not text.startswith(":", offset):
                raise NoJsonError(f"no colon behind the key {key!r}"[:120], offset, "write : between them")
            value = self.value(self.skip(offset + 1))
            entry = Entry(key, start, key_end, value)
            entries.append(entry)
            offset, entry.comma = self.behind_comma(value.end)
            if (not braces and offset == len(text)) or (braces and text.startswith("}", offset)):
                if entry.comma is not None:
                    self.note("a comma behind the last entry", entry.comma)
                node.end = offset + 1 if braces else offset
                return node
            if entry.comma is None:
                self.note("a missing comma", value.end)

    def array(self, offset: int) -> Node:
        text, items = self.text, list[Node]()
        node = Node(offset, offset, items=items)
        offset = self.skip(offset + 1)
        if text.startswith("]", offset):
            node.end = offset + 1
            return node
        while True:
            if offset >= len(text):
                raise NoJsonError("an array without an end", node.start, "close it with ]")
            items.append(self.value(offset))
            offset, comma = self.behind_comma(items[-1].end)
            if text.startswith("]", offset):
                if comma is not None:
                    self.note("a comma behind the last item", comma)
                node.end = offset + 1
                return node
            if comma is None:
                self.note("a missing comma", items[-1].end)

    def behind_comma(self, offset: int) -> tuple[int, int | None]:
        """Offset of what follows a value, and of the comma between, if there is one."""
        offset = self.skip(offset)
        if self.text.startswith(",", offset):
            return self.skip(offset + 1), offset
        return offset, None

    def key(self, offset: int) -> tuple[str, int, int]:
        """The key, where it starts, and where it ends."""
        text = self.text
        if text.startswith(('"', "'"), offset):
            key, end = self.string(offset)
            return key, offset, end
        match = re.compile(r"[^:{}\[\], \t\n\r]*").match(text, offset)
        assert match is not None, "an empty match at least"
        end = match.end()
        while end < len(text) and text[end] in SPACE:
            end += 1
        if end >= len(text):
            raise NoJsonError("the file ends where a key is expected", offset, "is a } missing?")
        if text[end] != ":":
            wrong = text[end] if text[end] in "{}[]," else text[offset : end + 1]
            raise NoJsonError(f"{wrong!r} where a key is expected"[:120], end, "put keys in double quotes")
        if match.end() == offset:
            raise NoJsonError("a colon without a key", offset, "write the key in double quotes before it")
        self.note("a key without quotes", offset)
        return match[0], offset, match.end()

    def string(self, begin: int) -> tuple[str, int]:
        """The text in quotes that start at `begin`, and where they end."""
        text, quote, end = self.text, self.text[begin], begin + 1
        if quote == "'":
            self.note("single quotes", begin)
        parts: list[str] = []
        while True:
            chunk = CHUNK.match(text, end)
            if chunk is None:
                raise NoJsonError("text without an end", begin, f"close it with {quote}")
            end = chunk.end()
            parts.append(chunk[1])
            if chunk[2] == quote:
                return "".join(parts), end
            if chunk[2] in "\"'":
                parts.append(chunk[2])
            elif chunk[2] != "\\":
                remedy = f"close the text with {quote}, or write \\n" if chunk[2] in "\r\n" else "escape it"
                raise NoJsonError(f"the character {chunk[2]!r} inside text", end - 1, remedy)
            else:
                char, end = self.escape(begin, end)
                parts.append(char)

    def escape(self, begin: int, end: int) -> tuple[str, int]:
        """What an escape means, and where it ends; `end` is behind its backslash."""
        text = self.text
        if end >= len(text):
            raise NoJsonError("text without an end", begin, "close it")
        if text[end] != "u":
            if text[end] not in ESCAPES:
                raise NoJsonError(f"\\{text[end]} is no escape", end - 1, "write \\\\ for a backslash")
            return ESCAPES[text[end]], end + 1
        first = self.hexadecimal(end + 1)
        if first is None:
            raise NoJsonError("\\u needs four hexadecimal digits", end - 1)
        end += 5
        if first & 0xFC00 == 0xD800 and text.startswith("\\u", end):
            second = self.hexadecimal(end + 2)
            if second is None:
                raise NoJsonError("\\u needs four hexadecimal digits", end)
            if second & 0xFC00 == 0xDC00:
                return chr(0x10000 + (((first - 0xD800) << 10) | (second - 0xDC00))), end + 6
        return chr(first), end

    def hexadecimal(self, offset: int) -> int | None:
        digits = self.text[offset : offset + 4]
        return int(digits, 16) if re.fullmatch(r"[0-9a-fA-F]{4}", digits) else None

    def lines(self, offset: int) -> Node:
        """Text between ''' and '''."""
        text = self.text
        self.note("text in three quotes", offset)
        end = text.find("'''", offset + 3)
        if end < 0:
            raise NoJsonError("text without an end", offset, "close it with '''")
        while text.startswith("'", end + 3):  # quotes before the last three belong to the text
            end += 1
        indent = offset - (text.rfind("\n", 0, offset) + 1)
        body = text[offset + 3 : end].replace("\r", "").lstrip(" \t")
        lines = body.removeprefix("\n").split("\n") if body.startswith("\n") else body.split("\n")
        kept = lines if not body.startswith("\n") else [_outdented(lines[0], indent), *lines[1:]]
        value = "\n".join([kept[0], *(_outdented(line, indent) for line in kept[1:])]).removesuffix("\n")
        return Node(offset, end + 3, value, quoteless=True)

    def bare(self, offset: int) -> Node:
        """true, false, null, a number, or text without quotes: that goes on to the end of its line."""
        text = self.text
        if text[offset] in PUNCTUATORS:
            raise NoJsonError(f"{text[offset]!r} where a value is expected", offset, "write the value")
        for match in VALUE_END.finditer(text, offset):
            end = match.start()
            written = text[offset:end]
            literal = written.strip()
            if literal in ("true", "false", "null"):
                value = {"true": True, "false": False, "null": None}[literal]
                return Node(offset, offset + len(literal), value)
            number = NUMBER.fullmatch(written)
            if number is not None:
                return Node(offset, offset + len(literal), self.number(number, offset))
            if end == len(text) or text[end] in "\r\n":
                self.note("text without quotes", offset)
                return Node(offset, offset + len(literal), literal, quoteless=True)
        raise AssertionError("every text ends")

    def number(self, match: re.Match[str], offset: int) -> int | float:
        """Whole numbers below 1e10 are integers however they are written: 5e8, 2.0."""
        whole, fraction, exponent = match.groups()
        if not fraction and not exponent:
            if len(whole) > MOST_DIGITS:
                raise NoJsonError(f"a number of {len(whole)} digits", offset, "write a smaller one")
            return int(whole)
        value = float(whole + (fraction or "") + (exponent or ""))
        if math.isinf(value):
            raise NoJsonError("a number too large for a float", offset, "write a smaller one")
        return int(value) if value.is_integer() and abs(value) < 1e10 else value


def _outdented(line: str, columns: int) -> str:
    """Without up to `columns` leading blanks."""
    kept = line.lstrip(" \t")
    return line[min(columns, len(line) - len(kept)) :]
