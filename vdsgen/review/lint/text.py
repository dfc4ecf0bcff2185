"""Findings for people: as a compiler prints them, with the line and a caret."""

from __future__ import annotations

from collections.abc import Sequence

from vdsgen.catalog.engine_keys import engine_data
from vdsgen.review.lint.finding import Finding, Level, Linted
from vdsgen.spec.secrets import masked

COLOURS: dict[Level, str] = {"error": "31;1", "warning": "35;1", "note": "36;1"}
WIDEST = 120
"""Of a line that is shown; longer ones are cut around the place."""
BEFORE = 400
"""Characters before those that are looked through for the key of a secret."""


def as_text(files: Sequence[Linted], *, colour: bool) -> str:
    """All files, and a count at the end."""
    blocks = [_finding(linted, finding, colour) for linted in files for finding in linted.findings]
    return "".join(f"{block}\n" for block in blocks) + _summary(files)


def _finding(linted: Linted, finding: Finding, colour: bool) -> str:
    document, place = linted.document, finding.place
    level = f"\x1b[{COLOURS[finding.level]}m{finding.level}\x1b[0m" if colour else finding.level
    head = f"{document.file}:{place.line}:{place.column}: {level}: {finding.message} [{finding.check}]"
    line = document.line(place.line).replace("\t", " ")
    first = max(0, place.column - 1 - WIDEST // 2) if len(line) > WIDEST else 0
    around = max(0, first - BEFORE)
    shown = _printable(masked(line[around : first + WIDEST])[first - around :])
    number = f"{place.line:5} | "
    carets = min(place.length, len(shown) - (place.column - 1 - first)) - 1
    caret = " " * (place.column - 1 - first) + "^" + "~" * max(0, carets)
    lines = [head, number + shown, " " * (len(number) - 2) + "| " + caret]
    if finding.remedy is not None:
        lines.append(f"  -> {finding.remedy}" + (" (--fix)" if finding.fix else ""))
    if finding.source is not None:
        lines.append(f"  see {finding.source}")
    return "\n".join(lines) + "\n"


def _printable(text: str) -> str:
    return "".join(char if char.isprintable() else "?" for char in text)


def _summary(files: Sequence[Linted]) -> str:
    release = engine_data()["deepspeed"]
    lines = []
    for linted in files:
        counts: list[tuple[int, Level]] = [
            (linted.count(level), level) for level in ("error", "warning", "note")
        ]
        said = ", ".join(f"{count} {level}{'' if count == 1 else 's'}" for count, level in counts if count)
        lines.append(f"{linted.document.file}: {said or 'nothing found'} (DeepSpeed {release})\n")
    return "".join(lines)
