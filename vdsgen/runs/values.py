"""Values out of files that anybody may have written: of the kind that was expected, or None."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

LONGEST_TEXT = 2_000
MOST_ITEMS = 100_000
SMALLEST, LARGEST = 1e-45, 1e39
"""Just beyond fp32's."""


def number(value: Any) -> float | None:
    """A finite number; one beyond all that fp32 holds is none, so that sums and quotients stay finite."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        found = float(value)
    except OverflowError:
        return None
    if not abs(found) <= LARGEST:
        return None
    return found if abs(found) >= SMALLEST else 0.0


def whole(value: Any) -> int | None:
    """A whole number of at most 2^53, not below 0."""
    fits = isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= 2**53
    return value if fits else None


def text(value: Any) -> str | None:
    """On one line, without what a terminal would obey."""
    return one_line(value) if isinstance(value, str) else None


def one_line(value: str, longest: int = LONGEST_TEXT) -> str:
    """What a terminal or a reader would take for something else (escapes, line ends, marks that turn the
    direction of writing) becomes visible; what is too long ends in `...`."""
    cut = value[:longest] + ("..." if len(value) > longest else "")
    return "".join(c if c.isprintable() else " " if c == "\t" else repr(c)[1:-1] for c in cut)


def numbers(value: Any) -> tuple[float | None, ...]:
    """Of a list; () where it is none."""
    return tuple(map(number, value[:MOST_ITEMS])) if isinstance(value, list) else ()


def whole_numbers(value: Any) -> tuple[int, ...]:
    """Of a list of nothing else; () otherwise."""
    found = [whole(item) for item in value[:MOST_ITEMS]] if isinstance(value, list) else []
    return tuple(item for item in found if item is not None) if None not in found else ()


def mapping(value: Any) -> Mapping[str, Any]:
    """{} where it is none."""
    return value if isinstance(value, dict) else {}


def mappings(value: Any) -> list[Mapping[str, Any]]:
    """Those items of a list that are mappings."""
    return [item for item in value[:MOST_ITEMS] if isinstance(item, dict)] if isinstance(value, list) else []


def object_of(line: str) -> Mapping[str, Any] | None:
    """The JSON object in a line, None where it is none."""
    try:
        found = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None
