"""A diff of whole trees on one screen: verdicts first, each setting's change once, outliers by name."""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Iterator, Sequence

from vdsgen.errors import VdsgenError
from vdsgen.planner.words import gib, seconds
from vdsgen.review.printable import printable
from vdsgen.review.side import PlainConfig
from vdsgen.review.trees.compare import TreeDiff
from vdsgen.review.trees.summary import Classes, KeyChange, RiskGroup, Summary, summary_of
from vdsgen.review.trees.units import Unit

WIDTH = 100
MOST_CHANGES = 16
"""Settings that are shown; the rest is counted. All lines together fit a screen of 40."""
MOST_RISKS = 4
MOST_UNITS = 3
"""Directories that came, went or moved, by name."""
FEW = 3
"""Directories that are named one by one: those alone in something, and those alone without it."""
LONGEST_VALUE = 24
LONGEST_RISK = 170
NOTHING = 0.0005
"""A relative change that is shown as none."""
LOSS_CURVES = {"identical": "identical", "rounding": "the same but for rounding", "different": "different"}
RESUMES = {"as_is": "as it is", "conversion": "only through conversion", "impossible": "not possible"}
INDENT = 12
"""Columns before a verdict."""
BOLD, RED, YELLOW, GREEN = "1", "31;1", "33;1", "32;1"
TONES = {
    "identical": GREEN,
    "as_is": GREEN,
    "rounding": YELLOW,
    "conversion": YELLOW,
    "different": RED,
    "impossible": RED,
}


def tree_diff_text(result: TreeDiff, *, colour: bool = False, verbose: bool = False) -> str:
    """`verbose` leaves nothing out."""
    paint = _painter(colour)
    summary = summary_of(result)
    below = f", in {printable(summary.prefix)}" if summary.prefix else ""
    lines = [paint(BOLD, printable(result.title)), counts(result) + below]
    if summary.pairs:
        lines += ["", *_verdicts(summary, paint)]
        lines += _changes(summary, paint, verbose=verbose)
    lines += _came_and_went(result, paint, verbose=verbose)
    for message in result.broken:
        lines += ["", f"{paint(RED, 'cannot be compared')}: {printable(message)}"]
    return "\n".join(lines) + "\n"


Paint = Callable[[str, str], str]
"""Colour and text -> text."""


def _painter(colour: bool) -> Paint:
    return lambda code, text: f"\x1b[{code}m{text}\x1b[0m" if colour else text


def counts(result: TreeDiff) -> str:
    """`40 changed, 1 added, 156 as before`."""
    parts = [
        (len(result.pairs), "changed"),
        (len(result.moved), "moved"),
        (len(result.added), "added"),
        (len(result.removed), "removed"),
        (result.unchanged, "as before"),
    ]
    said = ", ".join(f"{number} {word}" for number, word in parts if number)
    return said or "nothing to compare: no rendered directories and no DeepSpeed JSON"


def _verdicts(summary: Summary, paint: Paint) -> Iterator[str]:
    rows: list[tuple[str, str, str, str]] = []
    """Title, colour, the words in that colour, and the rest of the line."""
    for title, classes, words in (
        ("Loss curve", summary.loss_curve, LOSS_CURVES),
        ("Resume", summary.resume, RESUMES),
    ):
        for number, (verdict, text) in enumerate(class_lines(classes, words, len(summary.pairs))):
            head, _, rest = text.partition("\0")
            rows.append((title if number == 0 else "", TONES[verdict], head, rest))
    rows += [(title, BOLD, "", text) for title, text in figure_lines(summary)]
    for number, risk in enumerate(summary.risks[:MOST_RISKS]):
        tone = RED if risk.severity == "error" else YELLOW
        rows.append(("Risks" if number == 0 else "", tone, risk.severity, f" {risk_line(risk, summary)}"))
    if len(summary.risks) > MOST_RISKS:
        more = f"and {len(summary.risks) - MOST_RISKS} more kinds of risk (--verbose)"
        rows.append(("", BOLD, "", more))
    for title, tone, head, rest in rows:
        lines = textwrap.wrap(f"{head}{rest}", WIDTH - INDENT, break_on_hyphens=False, break_long_words=False)
        first = lines[0] if lines else ""
        yield f"{title:<{INDENT}}{paint(tone, head) if head else ''}{first[len(head) :]}"
        yield from (f"{'':<{INDENT + 2}}{line}" for line in lines[1:])


def class_lines(classes: Classes, words: dict[str, str], pairs: int) -> Iterator[tuple[str, str]]:
    """(verdict, `all 40 different` NUL ` because ...`), the worst first."""
    for verdict in reversed(words):
        names = classes.names.get(verdict, ())
        if not names:
            continue
        keys = [printable(key.partition(":")[2] or key) for key in classes.because.get(verdict, ())]
        because = f" ({listed(keys, 3)})" if keys else ""
        where = "" if len(names) == pairs else f": {some(names)}" if len(names) <= FEW else ""
        yield verdict, f"{share(len(names), pairs)} {words[verdict]}\0{because}{where}"


def figure_lines(summary: Summary) -> list[tuple[str, str]]:
    """Memory, room and time: the range, and who is at its ends."""
    if not summary.peak_bytes:
        return []
    return [
        ("Memory", _memory(summary)),
        ("Fits", _fits(summary)),
        ("Step time", _step_time(summary)),
    ]


def _memory(summary: Summary) -> str:
    most, least = summary.peak_bytes[0], summary.peak_bytes[-1]
    if max(abs(most.relative), abs(least.relative)) < NOTHING:
        return "peak as before"
    ends = (
        f"peak {span(least.relative, most.relative)}{_median(summary.median_peak, len(summary.peak_bytes))}"
    )
    return f"{ends}; {gib(most.old)} -> {gib(most.new)}: {printable(most.name)}"


def _fits(summary: Summary) -> str:
    number = len(summary.headroom_bytes)
    unfit = [one for one in summary.headroom_bytes if one.new < 0]
    if unfit:
        return f"not {len(unfit)} of {number}: {some([one.name for one in unfit])}"
    least = summary.headroom_bytes[0]
    before = "as before" if least.old == least.new else f"{gib(least.old)} before"
    spare = f"{gib(least.new)}, {before}: {printable(least.name)}"
    return f"{share(number, len(summary.pairs))}; least to spare {spare}"


def _step_time(summary: Summary) -> str:
    slowest, fastest = summary.step_seconds[0], summary.step_seconds[-1]
    if max(abs(slowest.relative), abs(fastest.relative)) < NOTHING:
        return "as before"
    ends = span(fastest.relative, slowest.relative) + _median(summary.median_step, len(summary.step_seconds))
    return f"{ends}; {seconds(slowest.old)} -> {seconds(slowest.new)}: {printable(slowest.name)}"


def _median(value: float, number: int) -> str:
    return f" (median {signed(value)})" if number > 2 else ""


def risk_line(risk: RiskGroup, summary: Summary) -> str:
    """Its sentence where that is one for all, else its name."""
    where = f"{share(len(risk.names), len(summary.pairs))}: " if len(risk.names) > 1 else ""
    text = risk.messages[0] if len(risk.messages) == 1 else risk.id
    names = "" if len(risk.names) == len(summary.pairs) else f": {some(risk.names)}"
    line = printable(f"{where}{text}{names}")
    return line if len(line) <= LONGEST_RISK else f"{line[: LONGEST_RISK - 3]}..."


def _changes(summary: Summary, paint: Paint, *, verbose: bool) -> Iterator[str]:
    own = [change for change in summary.changes if change.group != "housekeeping"]
    rest = [change for change in summary.changes if change.group == "housekeeping"]
    shown = own if verbose else own[:MOST_CHANGES]
    rows = [
        (change.group, change.short, values_of(change), where_of(change, summary, verbose=verbose))
        for change in shown
    ]
    widths = [min(46, max((len(row[column]) for row in rows), default=0)) for column in (1, 2)]
    group = None
    for title, key, values, where in rows:
        if title != group:
            group = title
            yield ""
            yield paint(BOLD, title.capitalize() if title != "unknown" else "Unknown to vdsgen")
        line = f"  {key:<{widths[0]}}  {values:<{widths[1]}}  {where}".rstrip()
        if len(line) <= WIDTH:
            yield line
        else:
            yield f"  {key:<{widths[0]}}  {values}"
            yield f"      {where}"
    if len(own) > len(shown):
        yield f"  and {len(own) - len(shown)} more settings (--verbose)"
    if rest:
        yield ""
        named = [f"{change.short} ({len(change.names)})" for change in rest]
        line = listed(list(map(printable, named)), len(named) if verbose else 5)
        if not verbose and len(line) > WIDTH - 14:
            line = f"{line[: WIDTH - 17]}..."
        yield f"{paint(BOLD, 'Housekeeping')}  {line}"


def values_of(change: KeyChange) -> str:
    """`1 -> 2`, `x 2 (8 -> 16, 16 -> 32, ...)`, or how many different changes there are."""
    first = change.variants[0]
    arrow = f"{_value(first.old)} -> {_value(first.new)}"
    if len(change.variants) == 1:
        return arrow
    if change.ratio is not None:
        return f"x {change.ratio:g} ({arrow}, ...)"
    return f"{arrow} and {len(change.variants) - 1} other"


def _value(text: str) -> str:
    text = printable(text).replace("\n", " ")
    return text if len(text) <= LONGEST_VALUE else f"{text[: LONGEST_VALUE - 3]}..."


def where_of(change: KeyChange, summary: Summary, *, verbose: bool = False) -> str:
    """`all 40`, `39, not configs/x`, `2: configs/a, configs/b`."""
    names, everywhere = change.names, summary.names
    if len(names) == len(everywhere):
        return f"all {len(names)}" if len(names) > 1 else printable(names[0])
    missing = [name for name in everywhere if name not in set(names)]
    if len(missing) <= FEW < len(names):
        return f"{len(names)}, not {some(missing)}"
    if len(names) <= FEW or verbose:
        return f"{len(names)}: {', '.join(map(printable, names))}" if len(names) > 1 else printable(names[0])
    return f"{len(names)} of {len(everywhere)}"


def _came_and_went(result: TreeDiff, paint: Paint, *, verbose: bool) -> Iterator[str]:
    most = None if verbose else MOST_UNITS
    moved = [f"{old or '.'} -> {new or '.'}" for old, new in result.moved]
    moved += [
        f"{pair.old.path or '.'} -> {pair.new.path or '.'}, and changed"
        for pair in result.pairs
        if pair.was_moved
    ]
    for title, lines in (
        ("Moved", moved),
        ("Added", [unit_line(unit) for unit in result.added]),
        ("Removed", [unit.shown_path for unit in result.removed]),
    ):
        if not lines:
            continue
        yield ""
        for number, line in enumerate(lines[:most]):
            yield f"{paint(BOLD, title) if number == 0 else ' ' * len(title)}  {printable(line)}"
        if most is not None and len(lines) > most:
            yield f"{' ' * len(title)}  and {len(lines) - most} more"


def unit_line(unit: Unit) -> str:
    """What a new directory is, in one line."""
    try:
        side = unit.side
    except VdsgenError as error:
        return f"{unit.shown_path}: {error}"
    if isinstance(side, PlainConfig):
        return f"{unit.shown_path}: a DeepSpeed JSON"
    plan = side.plan
    peak = max(stage.memory.peak_bytes for stage in plan.stages)
    return (
        f"{unit.shown_path}: {plan.model.name} on {plan.parallel.world_size} GPUs of {plan.pool}, "
        f"{gib(peak)} peak, {plan.predicted.samples_per_second:.3g} samples/s"
    )


def share(number: int, of: int) -> str:
    """`all 40`, `3 of 40`."""
    return f"all {of}" if number == of and of > 1 else f"{number} of {of}"


def some(names: Sequence[str]) -> str:
    """Three of them, and how many more."""
    return listed([printable(name) for name in names], FEW)


def listed(words: Sequence[str], most: int) -> str:
    more = f" and {len(words) - most} more" if len(words) > most else ""
    return ", ".join(words[:most]) + more


def signed(fraction: float) -> str:
    return f"{fraction * 100:+.1f} %" if abs(fraction) >= NOTHING else "0 %"


def span(low: float, high: float) -> str:
    """`+1.0 % to +46.9 %`, or one of them where they are the same."""
    return signed(high) if signed(low) == signed(high) else f"{signed(low)} to {signed(high)}"
