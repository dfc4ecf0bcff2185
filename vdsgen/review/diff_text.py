"""A diff for the terminal, at 100 columns."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Iterator, Sequence

import click

from vdsgen.review.diff import Diff
from vdsgen.review.diff_tables import (
    TITLES,
    ChangeRow,
    Row,
    change_tables,
    memory_rows,
    prediction_rows,
    rows_without_effect,
    time_rows,
)
from vdsgen.review.diff_words import (
    INSTEAD,
    Tone,
    edited_sentences,
    named_keys,
    no_difference,
    repeats,
    verdict_lines,
)
from vdsgen.review.risk import Risk

WIDTH = 100
SHORTEST_VALUE, LONGEST_KEY = 14, 46
ARROW = "  ->  "
PREDICTED, MEMORY, TIME = "Predicted", "Memory of each GPU, what changes", "Time of a step, what changes"
TONES: dict[Tone, str | None] = {"good": "green", "fair": "yellow", "bad": "red", "plain": None}


class Paint:
    """Styles text where colour is on; widths are those of the plain text."""

    def __init__(self, on: bool) -> None:
        self.on = on

    def title(self, text: str) -> str:
        return click.style(text, bold=True) if self.on else text

    def tone(self, text: str, tone: Tone) -> str:
        colour = TONES[tone]
        return click.style(text, fg=colour) if self.on and colour else text

    def faint(self, text: str) -> str:
        return click.style(text, dim=True) if self.on and text else text


def as_text(result: Diff, *, colour: bool = False) -> str:
    """Aligned columns, a block a group; colour only repeats what words say."""
    paint = Paint(colour)
    lines = [f"old  {printable(result.old)}", f"new  {printable(result.new)}"]
    if result.same:
        lines += ["", paint.tone(no_difference(result), "good")]
        lines += [*_without_effect(result, paint), *_risks(result.risks, paint)]
        return "\n".join(lines) + "\n"
    lines += ["", *_verdicts(result, paint), *_risks(result.risks, paint)]
    for title, rows in change_tables(result):
        lines += ["", paint.title(title), *_changes(rows, paint)]
    lines += _without_effect(result, paint)
    more = repeats(result)
    lines += ["", paint.faint(more)] if more else []
    for title, table in (
        (PREDICTED, prediction_rows(result)), (MEMORY, memory_rows(result)), (TIME, time_rows(result))
    ):  # fmt: skip
        if table:
            lines += ["", paint.title(title), *_figures(table)]
    for sentence in edited_sentences(result):
        lines += [
            "",
            *textwrap.wrap(f"{printable(sentence)} {''.join(INSTEAD)}", WIDTH, break_on_hyphens=False),
        ]
    return "\n".join(lines) + "\n"


def printable(text: str) -> str:
    """Without what a terminal would obey instead of show."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def _verdicts(result: Diff, paint: Paint) -> Iterator[str]:
    found = list(verdict_lines(result))
    width = max(len(verdict.subject) for verdict in found)
    for verdict in found:
        because = verdict.detail or named_keys(verdict.keys)
        says = paint.tone(verdict.says, verdict.tone)
        line = f"{verdict.subject.ljust(width)}  {verdict.says}" + (
            f": {printable(because)}" if because else ""
        )
        first, *rest = textwrap.wrap(
            line, WIDTH, subsequent_indent=" " * (width + 2), break_on_hyphens=False, break_long_words=False
        )
        yield paint.title(first[:width]) + first[width:].replace(verdict.says, says, 1)
        yield from rest


def _risks(risks: Sequence[Risk], paint: Paint) -> Iterator[str]:
    if not risks:
        return
    yield ""
    yield paint.title("Risks")
    for risk in risks:
        yield from _risk(risk, paint)


def _risk(risk: Risk, paint: Paint) -> Iterator[str]:
    indent = " " * 11
    head = f"  {risk.severity.ljust(7)}  {printable(risk.message)} [{printable(risk.id)}]"
    first, *rest = _wrapped(head, indent)
    tone: Tone = "bad" if risk.severity == "error" else "fair"
    yield first.replace(risk.severity, paint.tone(risk.severity, tone), 1)
    yield from rest
    yield from _wrapped(f"{indent}-> {printable(risk.remedy)}", indent + "   ")


def _wrapped(line: str, indent: str) -> list[str]:
    return textwrap.wrap(
        line, WIDTH, subsequent_indent=indent, break_on_hyphens=False, drop_whitespace=True,
        replace_whitespace=False,
    )  # fmt: skip


def _changes(rows: Sequence[ChangeRow], paint: Paint) -> Iterator[str]:
    file = max(len(row.file) for row in rows)
    keys = [cut(row.key, WIDTH - file - 4) for row in rows]
    key = max((len(name) for name in keys if len(name) <= LONGEST_KEY), default=0)
    both = max(2 * SHORTEST_VALUE, WIDTH - (2 + file + 2 + key + 2 + len(ARROW)))
    longest = [max(len(printable(row[column])) for row in rows) for column in (2, 3)]
    limits = [max(both // 2, both - other) for other in reversed(longest)]
    values = [(cut(row.old, limits[0]), cut(row.new, limits[1])) for row in rows]
    widths = tuple(max(len(pair[column]) for pair in values) for column in (0, 1))
    for row, name, pair in zip(rows, keys, values, strict=True):
        start = f"  {row.file.ljust(file)}  "
        if len(name) > LONGEST_KEY:
            yield f"{start}{name}"
            start = " " * (len(start) + key)
        else:
            start += name.ljust(key)
        yield from _values(start, row, pair, widths, paint)


def _values(
    start: str, row: ChangeRow, pair: tuple[str, str], widths: tuple[int, ...], paint: Paint
) -> Iterator[str]:
    """Old and new behind the key, and what is said of them: on the same line where it fits."""
    told = [f"[also {row.also}]"] if row.also else []
    told += [printable(row.note)] if row.note else []
    behind = "  ".join(told)
    fits = len(start) + 2 + widths[0] + len(ARROW) + widths[1] + 2 + len(behind) <= WIDTH
    new = pair[1].ljust(widths[1]) if behind and fits else pair[1]
    line = f"{start}  {paint.tone(pair[0].ljust(widths[0]), 'bad')}{ARROW}{paint.tone(new, 'good')}"
    if behind and fits:
        yield f"{line}  {paint.faint(behind)}"
        return
    yield line
    indent = " " * 6
    for one in told:
        yield from (paint.faint(part) for part in _wrapped(indent + one, indent))


def cut(text: str, longest: int) -> str:
    """On one line, and no longer than so many characters."""
    text = printable(text)
    return text if len(text) <= longest else f"{text[: longest - 3]}..."


def _without_effect(result: Diff, paint: Paint) -> Iterator[str]:
    rows = rows_without_effect(result)
    if rows:
        yield ""
        yield paint.title(TITLES["none"])
        yield from _changes(rows, paint)


def _figures(table: Sequence[Row]) -> list[str]:
    return _aligned([("", "old", "new", "change"), *table], right=(1, 2))


def _aligned(rows: Iterable[Sequence[str]], right: Sequence[int] = ()) -> list[str]:
    rows = list(rows)
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = []
    for row in rows:
        cells = [
            cell.rjust(width) if column in right else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        lines.append(("  " + "  ".join(cells)).rstrip())
    return lines
