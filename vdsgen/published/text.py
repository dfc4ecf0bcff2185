"""Outcomes for people: a line a row, then medians; or the tables of docs/published.md."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

from vdsgen.published.compare import Comparison, Outcome
from vdsgen.published.summary import MEMORY_LIMIT, TIME_LIMIT, Errors, Summary, by_source, summary


def text(outcomes: Sequence[Outcome]) -> str:
    """Every row with its errors or reasons, by source, and the medians last."""
    lines = []
    for source, group in by_source(outcomes).items():
        lines += [source or "(no source)", *(_row_line(one) for one in group), ""]
    return "\n".join([*lines, *_totals(summary(outcomes))]) + "\n"


def _row_line(one: Outcome) -> str:
    parts = []
    if one.memory is not None:
        parts.append(_figure(one.memory, "GiB"))
    elif one.memory_reason is not None:
        parts.append(f"memory: {one.memory_reason}")
    if one.seconds is not None:
        parts.append(_figure(one.seconds, "s"))
    elif one.seconds_reason is not None and one.seconds_reason != one.memory_reason:
        parts.append(f"time: {one.seconds_reason}")
    return f"  {one.row.line:>4}  {one.row.model[:30]:<30}  {'; '.join(parts) or 'no figure'}"


def _figure(figure: Comparison, unit: str) -> str:
    text = f"{figure.predicted:.4g} {unit} for {figure.measured:.4g} ({100 * figure.error:+.1f} %)"
    return text if figure.remark is None else f"{text}, {figure.remark}"


def _totals(total: Summary) -> Iterator[str]:
    yield f"{total.rows} rows"
    for name, count, errors in (
        ("peak memory", total.memory_rows, total.memory),
        ("of it allocated by torch", None, total.allocated),
        ("step time", total.time_rows, total.time),
    ):
        of = "" if count is None else f" of {count}"
        yield f"{name}: {errors.compared}{of} predicted, {_error(errors)}"


def _error(errors: Errors) -> str:
    if errors.median is None or errors.worst is None:
        return "no error to tell"
    worst = f"worst {100 * errors.worst:.0f} % (row {errors.worst_line})"
    return f"median error {100 * errors.median:.1f} %, {worst}"


def markdown(outcomes: Sequence[Outcome]) -> str:
    """The tables of docs/published.md: sources, rows that are off, and what cannot be expressed."""
    total = summary(outcomes)
    lines = [
        "| source | rows | memory predicted | median | worst | time predicted | median | worst |",
        "|---|---|---|---|---|---|---|---|",
    ]
    lines += [_source_line(name, summary(group)) for name, group in by_source(outcomes).items()]
    lines += [_source_line("**all**", total), ""]
    allocated = total.allocated
    lines += [f"Allocated by torch: {allocated.compared} rows, {_error(allocated)}.", ""]
    lines += ["Rows that are off:", "", "| row | model | figure | error | why |", "|---|---|---|---|---|"]
    lines += [
        *_off(outcomes),
        "",
        "Figures that are not predicted:",
        "",
        "| why | memory | time |",
        "|---|---|---|",
    ]
    return "\n".join([*lines, *_unexpressed(outcomes)]) + "\n"


def _source_line(name: str, of: Summary) -> str:
    cells = [name, str(of.rows)]
    for count, errors in ((of.memory_rows, of.memory), (of.time_rows, of.time)):
        cells.append(f"{errors.compared} of {count}" if count else "")
        cells.append("" if errors.median is None else f"{100 * errors.median:.1f} %")
        cells.append("" if errors.worst is None else f"{100 * errors.worst:.0f} % (row {errors.worst_line})")
    return f"| {' | '.join(cells)} |"


def _off(outcomes: Sequence[Outcome]) -> Iterator[str]:
    for one in outcomes:
        for name, figure, limit in (
            ("memory", one.memory, MEMORY_LIMIT),
            ("time", one.seconds, TIME_LIMIT),
        ):
            if figure is not None and figure.counts and abs(figure.error) > limit:
                why = figure.remark or "not explained"
                yield f"| {one.row.line} | {one.row.model} | {name} | {100 * figure.error:+.0f} % | {why} |"


def _unexpressed(outcomes: Sequence[Outcome]) -> Iterator[str]:
    memory = Counter(one.memory_reason for one in outcomes if one.memory_reason is not None)
    seconds = Counter(one.seconds_reason for one in outcomes if one.seconds_reason is not None)
    for reason in sorted({*memory, *seconds}, key=lambda why: (-memory[why] - seconds[why], why)):
        yield f"| {reason} | {memory[reason] or ''} | {seconds[reason] or ''} |"
