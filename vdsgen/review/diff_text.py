"""A diff for the terminal, and as Markdown for a pull request."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from vdsgen.render.formats import code, markdown, markdown_table
from vdsgen.review.diff import Diff
from vdsgen.review.diff_tables import change_tables, prediction_rows

PREDICTED = "Predicted"


def as_text(result: Diff) -> str:
    """Aligned columns, a block a group."""
    lines = [f"old  {result.old}", f"new  {result.new}"]
    if result.same:
        return "\n".join([*lines, "", "No difference."]) + "\n"
    for title, rows in change_tables(result):
        arrows = [
            (file, key, old, "->", new, f"[also {also}]" if also else "")
            for file, key, old, new, also in rows
        ]
        lines += ["", title, *_aligned(arrows)]
    lines += _repeats(result)
    table = prediction_rows(result)
    lines += ["", PREDICTED, *_aligned([("", "old", "new", "change"), *table], right=(1, 2))]
    lines += _edited(result)
    return "\n".join(lines) + "\n"


def _edited(result: Diff) -> list[str]:
    lines = []
    for directory in result.edited:
        lines += [
            "",
            f"{directory}/ds_config.json no longer says what was planned; what is predicted for it is",
            "the plan's. `vdsgen check` shows the lines; pin what you want and generate again.",
        ]
    return lines


def _repeats(result: Diff) -> list[str]:
    hidden = len(result.changes) - len(result.shown)
    if not hidden:
        return []
    verb = "change follows" if hidden == 1 else "changes follow"
    return ["", f"{hidden} more {verb} from these; --format json lists all."]


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


def as_markdown(result: Diff) -> str:
    """For a comment on a pull request."""
    lines = [f"**vdsgen diff** {code(result.old)} → {code(result.new)}", ""]
    if result.same:
        return "\n".join([*lines, "No difference."]) + "\n"
    lines += [markdown_table([(PREDICTED, "old", "new", "change"), *_stripped(prediction_rows(result))]), ""]
    for title, rows in change_tables(result):
        table = [
            (f"{file} {code(key)}", code(old), code(new), markdown(also))
            for file, key, old, new, also in rows
        ]
        lines += [markdown_table([(title, "old", "new", "also affects"), *table], "left"), ""]
    lines += [*_repeats(result)[1:], *_edited(result), ""]
    return "\n".join(lines).rstrip("\n") + "\n"


def _stripped(rows: Iterable[Sequence[str]]) -> list[tuple[str, ...]]:
    return [tuple(cell.strip() for cell in row) for row in rows]
