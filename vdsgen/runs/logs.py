"""What the ranks of a run's last start say, for people: the trainer's messages, and how an error ends."""

from __future__ import annotations

import os
import re
from collections import deque
from dataclasses import dataclass
from pathlib import Path

from vdsgen.runs.tail import Tail
from vdsgen.runs.values import one_line
from vdsgen.spec.run import LOGS, MESSAGE, STEP

FOLLOWED_RANKS = 64
"""Logs that are read; of a larger job those of the first ranks."""
FIRST_BYTES = 128 * 1024
"""Of each log that was there before somebody looked, at its end."""
LINES = 400
"""That are kept."""
NAME = re.compile(r"([0-9]{1,20})_rank([0-9]{1,9})\.log", re.ASCII)
"""As DeepSpeed's launcher names them (launcher/launch.py:239): the start's time, then the rank."""
ERROR = re.compile(
    r"[A-Za-z_][\w.]{0,200}(?:Error|Exception|Interrupt)\b|Traceback \(most recent call last\):"
)


@dataclass(frozen=True, slots=True)
class LogLine:
    rank: int
    text: str
    kind: str
    """`step`: a line of progress; `message`: for people; `error`: how a traceback begins or ends."""


class RunLogs:
    """`lines`: the last ones of the newest start, each once however many ranks say it."""

    def __init__(self, run: Path) -> None:
        self._folder = run / LOGS
        self._start = ""
        self._tails: dict[int, Tail] = {}
        self._said: dict[str, int] = {}
        self.lines: deque[LogLine] = deque(maxlen=LINES)

    @property
    def any(self) -> bool:
        """Whether a start has left a log."""
        return bool(self._tails)

    def look(self) -> bool:
        """Whether anything has changed."""
        changed = self._follow()
        for rank, tail in sorted(self._tails.items()):
            for line in tail.lines():
                changed = self._add(rank, line) or changed
        return changed

    def _follow(self) -> bool:
        """Whether there is a newer start."""
        try:
            found = [match for name in os.listdir(self._folder) if (match := NAME.fullmatch(name))]  # noqa: PTH208
        except OSError:
            return False
        if not found:
            return False
        start = max((match[1] for match in found), key=lambda digits: (len(digits), digits))
        newer = start != self._start
        if newer:
            self._start, self._tails, self._said = start, {}, {}
            self.lines.clear()
        for match in found:
            rank = int(match[2])
            if match[1] == start and rank < FOLLOWED_RANKS and rank not in self._tails:
                self._tails[rank] = Tail(self._folder / match[0], last_bytes=FIRST_BYTES)
        return newer

    def _add(self, rank: int, line: str) -> bool:
        if line.startswith(STEP):
            kind, said = "step", line.removeprefix(STEP)
        elif line.startswith(MESSAGE):
            kind, said = "message", line.removeprefix(MESSAGE)
        elif ERROR.match(line):
            kind, said = "error", line
        else:
            return False
        if kind != "step" and self._said.setdefault(said, rank) != rank:
            return False
        self.lines.append(LogLine(rank, one_line(said, 1000), kind))
        return True
