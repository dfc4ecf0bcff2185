"""How values that people wrote stand in messages: short, on one line, and without control characters."""

from __future__ import annotations

import re

_LONGEST = 60
_PLAIN_KEY = re.compile(r"[A-Za-z_][A-Za-z0-9_-]*")


def shown(value: object) -> str:
    """`'text'`, `12`, `true`, `nothing`, `a list` or `a mapping`."""
    if value is None:
        return "nothing"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, dict):
        return "a mapping"
    if isinstance(value, list | tuple):
        return "a list"
    if isinstance(value, str):
        return f"'{_one_line(value)}'"
    return _one_line(str(value))


def shown_key(key: str) -> str:
    """A key in a dotted path; in quotes where it is not made of letters, digits, `_` and `-`."""
    return key if len(key) <= _LONGEST and _PLAIN_KEY.fullmatch(key) else shown(key)


def _one_line(text: str) -> str:
    text = text if len(text) <= _LONGEST else f"{text[: _LONGEST - 3]}..."
    return text if text.isprintable() else text.encode("unicode_escape").decode()
