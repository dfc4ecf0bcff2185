"""Text of strangers' files, for a terminal."""

from __future__ import annotations


def printable(text: str) -> str:
    """Without what a terminal would obey instead of show."""
    return "".join(c if c.isprintable() or c in "\n\t" else repr(c)[1:-1] for c in text)
