"""A diff as rows of text, which the terminal and Markdown lay out in their own ways."""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import zip_longest
from typing import Any

from vdsgen.planner.words import seconds
from vdsgen.render.formats import decimal, gib, thousands
from vdsgen.review.changes import ABSENT, ONE_VALUE, Change
from vdsgen.review.diff import Diff
from vdsgen.review.effects import GROUPS, Group
from vdsgen.units import GIB

LONGEST_VALUE = 60
TITLES: dict[Group, str] = {
    "numerics": "Numerics",
    "memory": "Memory",
    "speed": "Speed",
    "housekeeping": "Housekeeping",
    "unknown": "Unknown to vdsgen",
}


def change_tables(result: Diff) -> Iterator[tuple[str, list[tuple[str, str, str, str, str]]]]:
    """(title, rows) for each group with changes; a row is (file, key, old, new, what else it affects)."""
    for group in GROUPS:
        rows = [_change_row(change) for change in result.shown if change.group == group]
        if rows:
            yield TITLES[group], rows


def _change_row(change: Change) -> tuple[str, str, str, str, str]:
    also = ", ".join(change.affects[1:])
    key = change.key or "the whole file"
    return change.file, key, _value(change, change.old), _value(change, change.new), also


def _value(change: Change, value: Any) -> str:
    if value is ABSENT:
        return "(absent)"
    if isinstance(value, bytes) or change.key in ONE_VALUE:
        return "(text before)" if value is change.old else "(text now)"
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    if change.key.endswith("sha256"):
        return text[:12]
    return text if len(text) <= LONGEST_VALUE else text[: LONGEST_VALUE - 3] + "..."


def prediction_rows(result: Diff) -> list[tuple[str, str, str, str]]:
    """(what, old, new, change) of everything predicted; the change is empty where there is none."""
    before, after = result.before, result.after
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
    return rows


def _bytes_row(
    what: str, old: int | None, new: int | None, relative: bool = True
) -> tuple[str, str, str, str]:
    texts = [f"{gib(value)} GiB" if value is not None else "-" for value in (old, new)]
    change = ""
    if old is not None and new is not None and old != new:
        change = f"{(new - old) / GIB:+.2f} GiB"
        if relative:
            change += f" ({_relative(old, new)})"
    return what, texts[0], texts[1], change


def _count_row(what: str, old: int, new: int) -> tuple[str, str, str, str]:
    return what, thousands(old), thousands(new), f"{new - old:+,d}" if old != new else ""


def _relative(old: float, new: float) -> str:
    if old == new or old == 0:
        return ""
    return f"{(new / old - 1) * 100:+.1f} %"
