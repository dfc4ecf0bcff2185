"""A frame as plain text, for terminals that are none, for logs, and for `--once`."""

from __future__ import annotations

import textwrap

from vdsgen.watch.blocks import bar, sparkline
from vdsgen.watch.frame import Frame
from vdsgen.watch.words import (
    memory_lines,
    notice_words,
    progress_words,
    restart_words,
    rows_of,
    stage_lines,
    state_words,
)

RANKS, NOTICES, LOG_LINES = 8, 6, 6
"""At most."""
LABEL, VALUE, BESIDE = 15, 12, 36
"""Cells."""


def plain_text(frame: Frame, width: int = 100, *, unicode: bool = True) -> str:
    """Lines of at most `width` cells."""
    sections = [
        _head(frame, width),
        _figures(frame, width, unicode=unicode),
        memory_lines(frame.memory, RANKS),
        stage_lines(frame) if width >= 93 else [],
        _notices(frame, width),
        _log(frame, width),
    ]
    text = "\n\n".join("\n".join(line[:width].rstrip() for line in lines) for lines in sections if lines)
    return text if unicode else text.encode("ascii", "replace").decode()


def _head(frame: Frame, width: int) -> list[str]:
    name = frame.name or frame.run
    state = state_words(frame)
    room = max(8, width - len(state) - 2)
    if len(name) > room:
        name = f"...{name[3 - room :]}"  # what a path ends with tells runs apart
    gap = max(2, width - len(name) - len(state))
    lines = [f"{name}{' ' * gap}{state}"]
    now = frame.standing
    if now.steps is not None:
        words = progress_words(frame)
        lines.append(f"{bar(now.step / max(1, now.steps), max(12, width - len(words) - 2))}  {words}")
    if frame.layout:
        lines += textwrap.wrap(frame.layout, width)
    if restart_words(frame):
        lines += textwrap.wrap(restart_words(frame), width)
    return lines


def _figures(frame: Frame, width: int, *, unicode: bool) -> list[str]:
    room = width - LABEL - VALUE - BESIDE - 3
    lines = []
    for row in rows_of(frame):
        line = f"{row.label:{LABEL}}{row.value:>{VALUE}}   {row.beside:{BESIDE}}"
        curve = None if row.curve is None else frame.curves.get(row.curve)
        if curve is not None and room >= 8 and len(curve.values) > 1:
            values = curve.smooth or curve.values
            line += sparkline(values, room, unicode=unicode)
        lines.append(line)
    return lines


def _notices(frame: Frame, width: int) -> list[str]:
    if not frame.notices:
        return []
    lines = ["alarms"]
    for notice in frame.notices[:NOTICES]:
        lines += textwrap.wrap(
            f"{notice.severity}: {notice_words(notice)}", width, initial_indent="  ", subsequent_indent="    "
        )
    if len(frame.notices) > NOTICES:
        lines.append(f"  and {len(frame.notices) - NOTICES} more")
    return lines


def _log(frame: Frame, width: int) -> list[str]:
    lines = [f"  {line.rank}: {line.text}" if line.rank else f"  {line.text}" for line in frame.log]
    shown = [line for line in lines if line.strip()][-LOG_LINES:]
    shown = [line if len(line) <= width else f"{line[: width - 3]}..." for line in shown]
    return ["log", *shown] if shown else []
