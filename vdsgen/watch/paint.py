"""Parts of the screen. Text is never markup: what files say stays what it is."""

from __future__ import annotations

import textwrap

from rich.text import Text

from vdsgen.runs.notices import Notice
from vdsgen.runs.state import State
from vdsgen.watch.blocks import sparkline
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

STATE_STYLES: dict[State, str] = {
    "waiting": "dim",
    "starting": "yellow",
    "running": "green",
    "silent": "bold red",
    "finished": "bold green",
    "stopped": "yellow",
    "failed": "bold red",
}
SEVERITY_STYLES = {"error": "bold red", "warning": "yellow", "note": "dim"}
LABEL, VALUE = 15, 12


def head_text(frame: Frame, width: int, *, paused: bool) -> Text:
    """Name and state; how far it is; the layout; how often it was started."""
    room = max(20, width - 2)
    now = frame.standing
    state = state_words(frame)
    if paused:
        state = f"PAUSED, {state}"
    name = frame.name or frame.run
    kept = max(8, room - min(len(state), room // 2) - 2)
    name = name if len(name) <= kept else f"...{name[3 - kept :]}"
    state = _cut(state, room - len(name) - 2)
    text = Text(no_wrap=True)
    text.append(name, "bold")
    text.append(" " * max(2, room - len(name) - len(state)))
    text.append(state, STATE_STYLES[now.state])
    if now.steps is not None:
        words = progress_words(frame)
        cells = max(10, room - len(words) - 2)
        filled = round(min(1.0, now.step / max(1, now.steps)) * cells)
        text.append("\n")
        text.append("━" * filled, "green")
        text.append("─" * (cells - filled), "dim")
        text.append(f"  {words}")
    if frame.layout:
        text.append(f"\n{_cut(frame.layout, room)}", "dim")
    if again := restart_words(frame):
        text.append(f"\n{_cut(again, room)}", "yellow")
    return text


def figures_text(frame: Frame, width: int, *, curves: bool) -> Text:
    """A line a figure. `curves`: with its curve beside it, where there is room."""
    text = Text(no_wrap=True)
    room = width - LABEL - VALUE - 3
    for row in rows_of(frame):
        if text.plain:
            text.append("\n")
        text.append(f"{row.label:{LABEL}}", "dim")
        text.append(f"{row.value:>{VALUE}}", "bold")
        beside = _cut(row.beside, room)
        text.append(f"   {beside}")
        curve = None if row.curve is None else frame.curves.get(row.curve)
        left = room - max(32, len(beside)) - 1
        if curves and curve is not None and left >= 8 and len(curve.values) > 1:
            values = curve.smooth or curve.values
            text.append(" " * (room - left - len(beside)) + sparkline(values, left), "cyan")
    return text


def ranks_text(frame: Frame, width: int, *, most: int, stages: bool) -> Text:
    """Memory, and where stages' seconds go."""
    lines = memory_lines(frame.memory, most)
    if stages:
        lines += ["", *stage_lines(frame)]
    over = {rank.rank for rank in frame.memory if rank.over_plan or rank.over_capacity}
    text = Text(no_wrap=True)
    for number, line in enumerate(lines):
        words = line.split()
        style = "dim" if number == 0 else ""
        if words[:1] == ["rank"] and words[1].isdecimal() and int(words[1]) in over:
            style = "yellow"
        text.append(("\n" if number else "") + _cut(line, width), style)
    return text


def alarm_text(frame: Frame, most: int) -> Text:
    """Each with what to do."""
    text = Text()
    for notice in frame.notices[:most]:
        if text.plain:
            text.append("\n")
        text.append(f"{notice.severity}: ", SEVERITY_STYLES[notice.severity])
        text.append(_sentence(notice))
    if len(frame.notices) > most:
        text.append(f"\nand {len(frame.notices) - most} more: 4", "dim")
    if not frame.notices and most > 100:
        text.append("no alarms", "dim")
    return text


def _sentence(notice: Notice) -> str:
    return textwrap.shorten(notice_words(notice), 600, placeholder="...")


def log_text(frame: Frame, most: int) -> Text:
    """The last lines."""
    text = Text(no_wrap=True, overflow="ellipsis")
    for line in list(frame.log)[-most:]:
        if text.plain:
            text.append("\n")
        text.append(f"{line.rank:>3} ", "dim")
        text.append(line.text, {"error": "bold red", "step": "dim"}.get(line.kind, ""))
    return text


def _cut(text: str, width: int) -> str:
    return text if len(text) <= width else f"{text[: max(0, width - 3)]}..."
