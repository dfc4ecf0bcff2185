"""Reads a small text file, or says what is wrong with it."""

from __future__ import annotations

import re
from pathlib import Path

from vdsgen.errors import InputError, Problem
from vdsgen.spec.suggest import did_you_mean

MAX_BYTES = 1024**2

_NOT_PRINTABLE = "[^\t\n\r\x20-\x7e\x85\xa0-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]"
"""YAML 1.2.2, section 5.1. Takes 6 ms to compile: most texts need not be searched."""
_WHITE_SPACE = str.maketrans("", "", "\t\n\r")


def read_text(path: Path) -> str:
    """The text of a file of at most 1 MiB of UTF-8.

    Raises InputError where there is no such file, and for one that is too large, or not text.
    """
    return text_of(_read(path), str(path))


def text_of(content: bytes, file: str) -> str:
    """As `read_text`, of what was read already; `file` is what messages call it."""
    if len(content) > MAX_BYTES:
        raise InputError([Problem("is larger than 1 MiB; a lab or experiment file never is", file)])
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        message = f"is not UTF-8 text (byte 0x{content[error.start]:02x})"
        raise InputError([Problem(message, file, line)]) from None
    if not text.translate(_WHITE_SPACE).isprintable() and (odd := re.search(_NOT_PRINTABLE, text)):
        line = text.count("\n", 0, odd.start()) + 1
        column = odd.start() - text.rfind("\n", 0, odd.start())
        message = f"holds a control character (U+{ord(odd[0]):04X}); is this a text file?"
        raise InputError([Problem(message, file, line, column)])
    return text


def _read(path: Path) -> bytes:
    file = str(path)
    try:
        with path.open("rb") as stream:
            return stream.read(MAX_BYTES + 1)
    except FileNotFoundError:
        raise InputError([Problem("no such file", file, remedy=_file_meant(path))]) from None
    except IsADirectoryError:
        raise InputError([Problem("is a directory; a YAML file is needed", file)]) from None
    except OSError as error:
        raise InputError([Problem(f"cannot be read: {error.strerror}", file)]) from None
    except ValueError as error:  # a NUL in the path
        raise InputError([Problem(f"cannot be read: {error}", repr(file))]) from None


def _file_meant(path: Path) -> str | None:
    """The YAML file beside it that was probably meant."""
    try:
        names = sorted(entry.name for entry in path.parent.iterdir() if entry.suffix in (".yaml", ".yml"))
    except OSError:
        return None
    near = did_you_mean(path.name, names)
    return f"did you mean {path.parent / near}?" if near else None
