"""Writes the tables of docs/published.md: published measurements beside predictions.

    python -m tests.update_published

Takes about a minute.
"""

from __future__ import annotations

from pathlib import Path

from vdsgen.files import write_atomically
from vdsgen.published.compare import compared
from vdsgen.published.row import BUNDLED, read_rows
from vdsgen.published.text import markdown

PAGE = Path(__file__).parent.parent / "docs/published.md"
MARK = "`python -m tests.update_published` writes what follows.\n"


def page(old: str, tables: str) -> str:
    """The page with everything after the mark replaced."""
    prose, mark, _ = old.partition(MARK)
    assert mark, f"{PAGE.name} has lost the line {MARK!r}"
    return f"{prose}{mark}\n{tables}"


if __name__ == "__main__":
    tables = markdown(list(compared(read_rows(BUNDLED))))
    write_atomically(PAGE, page(PAGE.read_text(encoding="utf-8"), tables).encode())
