"""A diff of whole trees, as Markdown for a pull request and as JSON for programs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from vdsgen.render.formats import code, markdown, markdown_table
from vdsgen.review.diff import Diff
from vdsgen.review.trees.compare import TreeDiff
from vdsgen.review.trees.diff_text import (
    LOSS_CURVES,
    RESUMES,
    class_lines,
    counts,
    figure_lines,
    listed,
    risk_line,
    unit_line,
    values_of,
    where_of,
)
from vdsgen.review.trees.summary import KeyChange, Summary, summary_of

MOST_CHARACTERS = 60_000
"""GitHub takes comments of 65,536, GitLab of a million."""
MOST_ROWS = 16
MARKS = {"error": "❌", "warning": "⚠️"}


def tree_diff_markdown(result: TreeDiff, one: Callable[[Diff], str]) -> str:
    """Verdicts, a table of settings, then every directory's own diff, folded; `one` is its Markdown. What
    would make the comment too long is counted."""
    summary = summary_of(result)
    below = f", in {code(summary.prefix)}" if summary.prefix else ""
    lines = [f"**vdsgen diff** {code(result.title)}: {markdown(counts(result))}{below}", ""]
    if summary.pairs:
        lines += [*_verdicts(summary), "", *_changes(summary)]
    lines += [*_came_and_went(result)]
    lines += [f"- cannot be compared: {markdown(message)}" for message in result.broken]
    text = "\n".join(lines).rstrip("\n") + "\n"
    return text + _each(result, one, MOST_CHARACTERS - len(text))


def _verdicts(summary: Summary) -> Iterator[str]:
    for title, classes, words in (
        ("Loss curve", summary.loss_curve, LOSS_CURVES),
        ("Resume", summary.resume, RESUMES),
    ):
        said = [text.replace("\0", "") for _, text in class_lines(classes, words, len(summary.pairs))]
        if said:
            yield f"- **{title}** {markdown('; '.join(said))}"
    for title, text in figure_lines(summary):
        yield f"- **{title}** {markdown(text)}"
    for risk in summary.risks:
        yield f"- {MARKS.get(risk.severity, '')} **{code(risk.id)}** {markdown(risk_line(risk, summary))}"


def _changes(summary: Summary) -> Iterator[str]:
    own = [change for change in summary.changes if change.group != "housekeeping"]
    rest = [change for change in summary.changes if change.group == "housekeeping"]
    if own:
        yield _table(own[:MOST_ROWS], summary)
        yield ""
    if len(own) > MOST_ROWS:
        yield _folded(f"{len(own) - MOST_ROWS} more settings", _table(own[MOST_ROWS:], summary))
    if rest:
        noun = "setting" if len(rest) == 1 else "settings"
        yield _folded(f"Housekeeping: {len(rest)} {noun}", _table(rest, summary))


def _table(changes: list[KeyChange], summary: Summary) -> str:
    rows = [("setting", "change", "where", "affects")]
    rows += [
        (code(change.short), code(values_of(change)), markdown(where_of(change, summary)), change.group)
        for change in changes
    ]
    return markdown_table(rows, "left")


def _folded(title: str, text: str) -> str:
    return f"<details><summary>{markdown(title)}</summary>\n\n{text}\n\n</details>\n"


def _came_and_went(result: TreeDiff) -> Iterator[str]:
    if result.moved:
        moved = [f"{code(old or '.')} → {code(new or '.')}" for old, new in result.moved]
        yield f"- **Moved** {listed(moved, MOST_ROWS)}"
    if result.added:
        yield f"- **Added** {listed([markdown(unit_line(unit)) for unit in result.added], MOST_ROWS)}"
    if result.removed:
        yield f"- **Removed** {listed([code(unit.shown_path) for unit in result.removed], MOST_ROWS)}"
    if result.moved or result.added or result.removed:
        yield ""


def _each(result: TreeDiff, one: Callable[[Diff], str], room: int) -> str:
    """As many directories' own diffs as there is room for."""
    shown = []
    for pair in result.pairs:
        block = "\n" + _folded(pair.name, one(pair.diff).rstrip("\n"))
        if len(block) > room - 100:
            break
        shown.append(block)
        room -= len(block)
    left = len(result.pairs) - len(shown)
    more = f"\n{left} more {'directory' if left == 1 else 'directories'}: `vdsgen diff --verbose`.\n"
    return "".join(shown) + (more if left else "")


def tree_diff_document(result: TreeDiff) -> dict[str, Any]:
    """Everything: the summary, and each pair's document as `vdsgen diff` of it alone gives."""
    summary = summary_of(result)
    return {
        "schema_version": 1,
        "old": result.old,
        "new": result.new,
        "title": result.title,
        "same": result.same,
        "counts": {
            "changed": len(result.pairs),
            "moved": len(result.moved),
            "added": len(result.added),
            "removed": len(result.removed),
            "unchanged": result.unchanged,
            "broken": len(result.broken),
        },
        "verdicts": {
            "loss_curve": {verdict: list(names) for verdict, names in summary.loss_curve.names.items()},
            "resume": {verdict: list(names) for verdict, names in summary.resume.names.items()},
        },
        "risks": [
            {
                "id": risk.id,
                "severity": risk.severity,
                "messages": list(risk.messages),
                "directories": list(risk.names),
            }
            for risk in summary.risks
        ],
        "changes": [
            {
                "file": change.file,
                "key": change.key,
                "affects": change.group,
                "ratio": change.ratio,
                "variants": [
                    {"old": variant.old, "new": variant.new, "directories": list(variant.names)}
                    for variant in change.variants
                ],
            }
            for change in summary.changes
        ],
        "moved": [{"old": old, "new": new} for old, new in result.moved],
        "added": [unit.shown_path for unit in result.added],
        "removed": [unit.shown_path for unit in result.removed],
        "broken": list(result.broken),
        "directories": [
            {"path": pair.new.path, "was": pair.old.path, "diff": pair.document} for pair in result.pairs
        ],
    }
