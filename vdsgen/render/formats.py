"""Numbers and text as people read them: fixed formats, the same on every machine."""

from __future__ import annotations

import math
import re
import unicodedata
from collections.abc import Sequence
from typing import Literal

from vdsgen.units import GIB

MARKDOWN_SPECIAL = re.compile(r"[\\`*\[\]<>|~&$]|(?<!\w)_|_(?!\w)")
"""What starts markup inside a line. An underscore between letters does not."""


def gib(size_bytes: float) -> str:
    """Bytes as GiB, two digits: `14.50`."""
    return f"{size_bytes / GIB:.2f}"


def decimal(value: float) -> str:
    """Three significant digits, never in exponents: `0.812`, `12.3`, `1234`."""
    digits = max(0, 2 - math.floor(math.log10(abs(value)))) if value else 2
    return f"{value:.{digits}f}"


def thousands(value: int) -> str:
    """Thousands set apart: `1,234,567`."""
    return f"{value:,d}"


def markdown(text: object) -> str:
    """`text` as Markdown that shows it literally, on one line."""
    one_line = _one_line(text)
    return MARKDOWN_SPECIAL.sub(lambda match: "\\" + match[0], one_line)


def _one_line(text: object) -> str:
    """Control characters as escapes: pages leave them out, and terminals obey them."""
    one_line = " ".join(str(text).split())
    if one_line.isprintable():
        return one_line
    return "".join(repr(c)[1:-1] if unicodedata.category(c) == "Cc" else c for c in one_line)


def code(text: object) -> str:
    """`text` as a Markdown code span on one line, whatever backticks it holds."""
    one_line = _one_line(text)
    longest = max((len(run) for run in re.findall("`+", one_line)), default=0)
    fence = "`" * (longest + 1)
    pad = " " if one_line.startswith("`") or one_line.endswith("`") else ""
    return f"{fence}{pad}{one_line}{pad}{fence}"


def markdown_table(rows: Sequence[Sequence[object]], numbers: Literal["left", "right"] = "right") -> str:
    """A Markdown table, columns padded; the first row is its head, the first column is aligned left."""
    # A bar ends a cell even inside a code span (GitHub Flavored Markdown, section 4.10).
    cells = [[re.sub(r"(?<!\\)\|", r"\|", str(cell)) for cell in row] for row in rows]
    widths = [max(3, *(len(row[column]) for row in cells)) for column in range(len(cells[0]))]
    right = [column > 0 and numbers == "right" for column in range(len(widths))]

    def line(row: Sequence[str]) -> str:
        padded = (c.rjust(w) if r else c.ljust(w) for c, w, r in zip(row, widths, right, strict=True))
        return "| " + " | ".join(padded) + " |"

    rule = ["-" * (width - 1) + ":" if r else "-" * width for width, r in zip(widths, right, strict=True)]
    return "\n".join([line(cells[0]), line(rule), *(line(row) for row in cells[1:])])
