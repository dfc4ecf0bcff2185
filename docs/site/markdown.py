"""Markdown that says what a text says: nothing in it becomes markup by accident."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

CODE_SPAN = re.compile(r"(`[^`\n]+`)")
MARKUP = re.compile(r"([\\*<>\[\]$|])")
ADDRESS = re.compile(r"https?://[^\s<>`]*[^\s<>`.,;:)]")
PAPER = re.compile(r"\barXiv:? (\d{4}\.\d{4,5})")
DOI = re.compile(r"\bdoi:? (10\.\d{4,}/[^\s,;)]*[^\s,;.)])")


def prose(text: str) -> str:
    """Plain text with `code` in it, as one paragraph's Markdown; papers and addresses become links."""
    parts = CODE_SPAN.split(text)
    return "".join(part if index % 2 else _linked(part) for index, part in enumerate(parts))


def cell(text: str) -> str:
    """`prose` in a table: one line, no bar that ends the cell, not even in code."""
    line = " ".join(text.split())
    parts = CODE_SPAN.split(line)
    return "".join(
        part.replace("|", r"\|") if index % 2 else _linked(part) for index, part in enumerate(parts)
    )


def code(text: str) -> str:
    """A code span, for a cell as well."""
    return f"`{text}`".replace("|", r"\|") if text else ""


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Cells are Markdown already; none of an empty table."""
    lines = [f"| {' | '.join(row)} |" for row in rows]
    if not lines:
        return ""
    return "\n".join([f"| {' | '.join(head)} |", "|" + "---|" * len(head), *lines]) + "\n"


def fence(text: str, language: str = "") -> str:
    ticks = "`" * max(3, 1 + max((len(run) for run in re.findall("`+", text)), default=0))
    return f"{ticks}{language}\n{text.rstrip()}\n{ticks}\n"


def docstring(text: str) -> str:
    """A docstring's paragraphs and lists. Indented parts that are no list items stay as they are typed."""
    return "\n\n".join(_block(block) for block in re.split(r"\n\s*\n", text.strip())) + "\n"


def _block(block: str) -> str:
    lines = block.split("\n")
    if all(line.startswith("    ") for line in lines):
        return fence("\n".join(line[4:] for line in lines)).rstrip()
    return "\n".join(prose(line) for line in lines)


def _linked(text: str) -> str:
    """Escaped, with links where papers and addresses are named."""
    pattern = re.compile("|".join(f"(?:{part.pattern})" for part in (ADDRESS, PAPER, DOI)))
    made, end = [], 0
    for match in pattern.finditer(text):
        made += [_escaped(text[end : match.start()]), _link(match)]
        end = match.end()
    return "".join([*made, _escaped(text[end:])])


def _link(match: re.Match[str]) -> str:
    paper, doi = match.groups()
    if paper:
        return f"[arXiv {paper}](https://arxiv.org/abs/{paper})"
    if doi:
        return f"[doi {doi}](https://doi.org/{doi})"
    return f"<{match[0]}>"


def _escaped(text: str) -> str:
    return MARKUP.sub(r"\\\1", text)
