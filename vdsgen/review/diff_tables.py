"""A diff as rows of text, which the terminal and Markdown lay out in their own ways."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from itertools import groupby, zip_longest
from typing import Any, NamedTuple

from vdsgen.planner.parts import PARTS
from vdsgen.planner.words import duration, seconds
from vdsgen.render.formats import decimal, gib, thousands
from vdsgen.review.absent import ABSENT
from vdsgen.review.changes import ONE_VALUE, Change
from vdsgen.review.diff import Diff
from vdsgen.review.effect import GROUPS, Group
from vdsgen.review.effective import BATCH
from vdsgen.review.impact import COMPONENTS, Impact, Pair, StageImpact
from vdsgen.units import GIB

LONGEST_VALUE = 60
TITLES: dict[Group, str] = {
    "numerics": "Numerics",
    "memory": "Memory",
    "speed": "Speed",
    "housekeeping": "Housekeeping",
    "unknown": "Unknown to vdsgen",
    "none": "Written otherwise, to the same effect",
}
SMALLEST_BYTES = GIB // 200
"""Changes that two digits of GiB do not show."""
Row = tuple[str, str, str, str]
"""What, old, new, change."""


class ChangeRow(NamedTuple):
    """One change as text."""

    file: str
    key: str
    old: str
    new: str
    also: str
    """What else it affects; empty where nothing."""
    note: str


def change_tables(result: Diff) -> Iterator[tuple[str, list[ChangeRow]]]:
    """(title, rows) for each group with changes that affect something."""
    for group in GROUPS:
        rows = [_change_row(change) for change in result.shown if change.group == group]
        if rows:
            yield TITLES[group], rows


def rows_without_effect(result: Diff) -> list[ChangeRow]:
    """What is written otherwise, and comes to the same."""
    return [_change_row(change) for change in result.without_effect]


def _change_row(change: Change) -> ChangeRow:
    old, new = _value(change, change.old, change.was), _value(change, change.new, change.now)
    also = ", ".join(change.affects[1:])
    return ChangeRow(change.file, change.key or "the whole file", old, new, also, change.note or "")


def _value(change: Change, written: Any, effective: Any) -> str:
    if written is ABSENT and _is_told(effective):
        text = _text(change, effective)
        return f"({text})" if change.key in BATCH else f"default {text}"
    if written is ABSENT:
        return "(absent)"
    if isinstance(written, bytes) or change.key in ONE_VALUE:
        return "(text before)" if written is change.old else "(text now)"
    return _text(change, written)


def _is_told(effective: Any) -> bool:
    """Whether a default is worth showing in the place of a key that is not there."""
    return effective is not ABSENT and effective is not None and effective != {}


def _text(change: Change, value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    if change.key.endswith("sha256"):
        return text[:12]
    return text if len(text) <= LONGEST_VALUE else text[: LONGEST_VALUE - 3] + "..."


def prediction_rows(result: Diff) -> list[Row]:
    """Everything predicted, and what a run sees; the change is empty where there is none."""
    before, after, impact = result.before, result.after, result.impact
    if before is None or after is None or impact is None:
        return []
    rows = [_bytes_row("peak memory, fullest GPU", before.peak_bytes, after.peak_bytes)]
    stages = list(zip_longest(before.stage_peak_bytes, after.stage_peak_bytes))
    if len(stages) > 1:
        rows += [_bytes_row(f"  stage {index}", old, new) for index, (old, new) in enumerate(stages)]
    rows += [
        _bytes_row("memory to spare", before.headroom_bytes, after.headroom_bytes, relative=False),
        (
            "time of a step",
            seconds(before.step_seconds),
            seconds(after.step_seconds),
            _relative(before.step_seconds, after.step_seconds),
        ),
        (
            "samples a second",
            decimal(before.samples_per_second),
            decimal(after.samples_per_second),
            _relative(before.samples_per_second, after.samples_per_second),
        ),
        _count_row("effective batch, clips", before.global_batch_size, after.global_batch_size),
    ]
    if before.world_size != after.world_size:
        rows.append(_count_row("GPUs", before.world_size, after.world_size))
    if before.parameters != after.parameters:
        rows.append(_count_row("parameters", before.parameters, after.parameters))
    return [*rows, *_run_rows(impact), *_price_rows(impact)]


def _run_rows(impact: Impact) -> Iterator[Row]:
    """Of a run as long as the experiment says, where that changes."""
    for name, words in (
        ("steps", "steps of the run"), ("samples", "clips that the run sees"),
        ("warmup_samples", "clips in the warm-up"),
    ):  # fmt: skip
        pair = impact.run.get(name)
        if pair is not None and pair.old != pair.new:
            yield _count_row(words, _whole(pair.old), _whole(pair.new))
    yield from _changed_row("passes over the clips", impact.run.get("epochs"), decimal)
    yield from _changed_row("length of the run", impact.run.get("run_seconds"), duration)
    held = impact.host_bytes_by_node
    if held.is_known:
        what = "kept in host memory, fullest node"
        yield _bytes_row(what, _whole(held.old), _whole(held.new), relative=False)


def _price_rows(impact: Impact) -> Iterator[Row]:
    yield from _changed_row("price of 1,000 samples", impact.price_per_1000_samples, decimal)
    yield from _changed_row("price of an hour", impact.price_per_hour, decimal)


def _changed_row(what: str, pair: Pair | None, words: Callable[[float], str]) -> Iterator[Row]:
    if pair is not None and pair.old != pair.new:
        yield what, _or_dash(pair.old, words), _or_dash(pair.new, words), _pair_relative(pair)


def memory_rows(result: Diff) -> list[Row]:
    """What changed on the GPUs of each stage, by component; stages that change alike together."""
    if result.impact is None:
        return []
    rows: list[Row] = []
    alike = groupby(result.impact.stages, key=_memory_of_stage)
    for changed, group in alike:
        stages = [stage.index for stage in group]
        if not changed:
            continue
        name = f"stage {stages[0]}" if len(stages) == 1 else f"stages {stages[0]}-{stages[-1]}"
        for place, (component, old, new) in enumerate(changed):
            figures = _bytes_row("", old, new, relative=False)[1:]
            rows.append((f"{name if place == 0 else ' ' * len(name)}  {component}", *figures))
    return rows


def _memory_of_stage(stage: StageImpact) -> tuple[tuple[str, int | None, int | None], ...]:
    """(component, old, new) of those that differ visibly."""
    pairs = [(name, stage.pair(name)) for name in (*COMPONENTS, "peak")]
    pairs.append(("in host memory", stage.of_stage("host_bytes")))
    if None not in stage.sides:
        pairs.append(("capacity", stage.of_stage("capacity_bytes")))
    return tuple((name, _whole(pair.old), _whole(pair.new)) for name, pair in pairs if _is_visible(pair))


def _is_visible(pair: Pair) -> bool:
    if pair.change is None:
        return any(one for one in pair)
    return abs(pair.change) >= SMALLEST_BYTES


def time_rows(result: Diff) -> list[Row]:
    """Where the seconds of a step go, of the causes that changed."""
    if result.impact is None:
        return []
    return [
        (PARTS[name], seconds(pair.old), seconds(pair.new), _signed_seconds(pair))
        for name, pair in result.impact.parts.items()
        if pair.old is not None and pair.new is not None and seconds(pair.old) != seconds(pair.new)
    ]


def _signed_seconds(pair: Pair) -> str:
    change = pair.change or 0.0
    return f"{'-' if change < 0 else '+'}{seconds(abs(change))}"


def _bytes_row(what: str, old: int | None, new: int | None, relative: bool = True) -> Row:
    texts = [f"{gib(value)} GiB" if value is not None else "-" for value in (old, new)]
    change = ""
    if old is not None and new is not None and old != new:
        change = f"{(new - old) / GIB:+.2f} GiB"
        if relative:
            change += f" ({_relative(old, new)})"
    return what, texts[0], texts[1], change


def _count_row(what: str, old: int | None, new: int | None) -> Row:
    change = f"{new - old:+,d}" if old is not None and new is not None and old != new else ""
    return what, _or_dash(old, thousands), _or_dash(new, thousands), change


def _or_dash(value: Any, words: Any) -> str:
    return "-" if value is None else str(words(value))


def _whole(value: float | None) -> int | None:
    return None if value is None else int(value)


def _pair_relative(pair: Pair) -> str:
    return "" if pair.old is None or pair.new is None else _relative(pair.old, pair.new)


def _relative(old: float, new: float) -> str:
    if old == new or old == 0:
        return ""
    return f"{(new / old - 1) * 100:+.1f} %"
