"""What a person sees of a run: messages, and on a terminal a bar with the time left."""

from __future__ import annotations

import json
import shutil
import statistics
from collections import deque
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, TextIO

from vdsgen.runs.tail import Tail
from vdsgen.spec.base import LARGEST
from vdsgen.spec.run import MESSAGE, STEP

RECENT_STEPS = 20
"""Steps whose median makes the estimate of the time left."""


@dataclass(frozen=True, slots=True)
class Progress:
    """Where a run is, from its metrics."""

    step: int
    steps: int
    loss: float | None
    """None where it is no number."""
    seconds_left: float


def bar(progress: Progress, width: int) -> str:
    """One line of at most `width` characters."""
    done = min(1.0, progress.step / max(1, progress.steps))
    loss = "none" if progress.loss is None else f"{progress.loss:.4f}"
    text = f" {progress.step}/{progress.steps}  loss {loss}  {duration(progress.seconds_left)} left"
    cells = max(0, min(40, width - len(text) - 3))
    filled = int(done * cells)
    return (f"[{'#' * filled}{'.' * (cells - filled)}]" + text)[: max(0, width - 1)]


def duration(seconds: float) -> str:
    """`42s`, `3m 05s`, `2h 07m`, `3d 04h`."""
    whole = int(seconds)
    if whole < 60:
        return f"{whole}s"
    if whole < 3600:
        return f"{whole // 60}m {whole % 60:02d}s"
    if whole < 86400:
        return f"{whole // 3600}h {whole % 3600 // 60:02d}m"
    return f"{whole // 86400}d {whole % 86400 // 3600:02d}h"


def _step_of(line: str) -> tuple[int, float | None, float] | None:
    """Number, loss and seconds of a step, from its line of the metrics; None where it is none."""
    try:
        metrics = json.loads(line)
        step, loss, seconds = int(metrics["step"]), metrics["loss"], float(metrics["step_seconds"])
        loss = None if loss is None else float(loss)
    except (ValueError, KeyError, TypeError, OverflowError, RecursionError):
        return None
    return (step, loss, seconds) if 0 <= step <= LARGEST and 0 <= seconds <= LARGEST else None


class Shows(Protocol):
    """What following a run needs of whatever shows it."""

    def rank_line(self, rank: int, line: str) -> None:
        """A line of a rank's log, as it was printed."""

    def say(self, text: str) -> None:
        """A message of the launcher itself."""

    def refresh(self) -> None:
        """Called several times a second."""

    def close(self) -> None:
        """The run has ended; messages may follow."""


class Display:
    """Writes the trainer's messages to `stream`; where that is a terminal, step lines become a bar."""

    def __init__(self, stream: TextIO, metrics: Path, steps: int) -> None:
        self._stream = stream
        self._steps = steps
        self._terminal = stream.isatty()
        self._tail = Tail(metrics, last_bytes=0)
        self._recent: deque[float] = deque(maxlen=RECENT_STEPS)
        self._bar = ""
        self._said: dict[str, int] = {}
        """Message -> the rank that was first to say it."""

    def rank_line(self, rank: int, line: str) -> None:
        """A line of a rank's log: shown if it is meant for people, once however many ranks say it."""
        if line.startswith(STEP):
            if not self._terminal:
                self.say(line.removeprefix(STEP))
        elif line.startswith(MESSAGE):
            text = line.removeprefix(MESSAGE)
            if self._said.setdefault(text, rank) == rank:
                self.say(f"rank {rank}: {text}" if rank else text)

    def say(self, text: str) -> None:
        self._erase()
        self._stream.write(text + "\n")
        self._draw()
        self._stream.flush()

    def refresh(self) -> None:
        """Move the bar to the newest step; after the last one there is none."""
        if not self._terminal:
            return
        drawn = self._bar
        for line in self._tail.lines():
            found = _step_of(line)
            if found is None:
                continue
            step, loss, seconds = found
            self._recent.append(seconds)
            left = max(0, self._steps - step) * statistics.median(self._recent)
            self._erase()
            width = shutil.get_terminal_size().columns
            self._bar = bar(Progress(step, self._steps, loss, left), width) if step < self._steps else ""
        if self._bar != drawn:
            self._draw()
            self._stream.flush()

    def close(self) -> None:
        self._erase()
        self._bar = ""
        self._stream.flush()

    def _erase(self) -> None:
        if self._bar:
            self._stream.write("\r\x1b[K")

    def _draw(self) -> None:
        if self._bar:
            self._stream.write("\r" + self._bar)
