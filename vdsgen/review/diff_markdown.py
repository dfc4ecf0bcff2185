"""A diff as Markdown, for a comment on a pull request: the verdict first, long lists folded."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from vdsgen.render.formats import code, markdown, markdown_table
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
from vdsgen.review.diff_text import MEMORY, PREDICTED, TIME, printable
from vdsgen.review.diff_words import (
    INSTEAD,
    MOST_KEYS,
    Verdict,
    edited_sentences,
    no_difference,
    repeats,
    short_key,
    verdict_lines,
)

MOST_OPEN_ROWS = 12
"""Longer tables are folded."""


def as_markdown(result: Diff) -> str:
    """Text of others is shown literally."""
    lines = [f"**vdsgen diff** {_code(result.old)} → {_code(result.new)}", ""]
    if result.same:
        lines += [no_difference(result), "", *_risks(result), *_without_effect(result)]
        return "\n".join(lines).rstrip("\n") + "\n"
    lines += [" · ".join(_verdict(verdict) for verdict in verdict_lines(result)), ""]
    lines += [*_risks(result), *_settings(result), *_without_effect(result)]
    predicted = prediction_rows(result)
    if predicted:
        lines += [_figures(PREDICTED, predicted), ""]
    for title, rows in ((MEMORY, memory_rows(result)), (TIME, time_rows(result))):
        lines += _folded(title, _figures("", rows)) if rows else []
    for sentence in edited_sentences(result):
        lines += [f"> {markdown(printable(sentence))} {INSTEAD[0]}{INSTEAD[1]}", ""]
    return "\n".join(lines).rstrip("\n") + "\n"


def _code(text: str) -> str:
    return code(printable(text))


def _verdict(verdict: Verdict) -> str:
    said = f"{verdict.subject}: **{markdown(verdict.says.replace('->', '→'))}**"
    keys = ", ".join(_code(short_key(key)) for key in verdict.keys[:MOST_KEYS])
    more = len(verdict.keys) - MOST_KEYS
    behind = markdown(verdict.detail.replace("->", "→")) or (f"{keys} and {more} more" if more > 0 else keys)
    return f"{said} ({behind})" if behind else said


def _risks(result: Diff) -> Iterator[str]:
    for risk in result.risks:
        message, remedy = markdown(printable(risk.message)), markdown(printable(risk.remedy))
        yield f"- **{risk.severity}** {_code(risk.id)}: {message}<br>→ {remedy}"
    if result.risks:
        yield ""


def _settings(result: Diff) -> Iterator[str]:
    for title, rows in change_tables(result):
        table = markdown_table([(title, "old", "new", "also affects"), *map(_row, rows)], "left")
        if len(rows) > MOST_OPEN_ROWS:
            yield from _folded(f"{title}: {len(rows)} settings", table)
        else:
            yield table
            yield ""
    more = repeats(result)
    if more:
        yield markdown(more)
        yield ""


def _row(row: ChangeRow) -> tuple[str, str, str, str]:
    behind = "; ".join(part for part in (row.also, row.note) if part)
    return f"{row.file} {_code(row.key)}", _code(row.old), _code(row.new), markdown(printable(behind))


def _without_effect(result: Diff) -> Iterator[str]:
    rows = rows_without_effect(result)
    if rows:
        table = markdown_table([("setting", "old", "new", "why"), *map(_row, rows)], "left")
        yield from _folded(f"{TITLES['none']}: {len(rows)}", table)


def _figures(title: str, rows: Sequence[Row]) -> str:
    stripped = [tuple(markdown(cell.strip()) for cell in row) for row in rows]
    return markdown_table([(title, "old", "new", "change"), *stripped])


def _folded(title: str, text: str) -> list[str]:
    return [f"<details><summary>{title}</summary>", "", text, "", "</details>", ""]
