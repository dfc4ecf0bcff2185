"""What a person sees while plans run: a line a run, and on a terminal where things stand."""

from __future__ import annotations

import shutil
import statistics
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TextIO, TypeVar

from vdsgen.ablate.records import RunEnded
from vdsgen.launch.progress import duration
from vdsgen.runs.tail import Tail
from vdsgen.spec.run import MESSAGE, STEP

Item = TypeVar("Item")
STATUS_WORDS = {"ok": "ok", "out_of_memory": "out of memory", "failed": "failed"}


def counting(items: Sequence[Item], what: str, stream: TextIO) -> Iterator[Item]:
    """The items, one by one; on a terminal a line says which it is, until the last is done."""
    if not stream.isatty():
        yield from items
        return
    try:
        for number, item in enumerate(items, start=1):
            stream.write(f"\r\x1b[K{what} {number} of {len(items)}")
            stream.flush()
            yield item
    finally:
        stream.write("\r\x1b[K")
        stream.flush()


class Progress:
    """Writes to `stream`, which is no place for results."""

    def __init__(self, stream: TextIO, runs: int, earlier: Sequence[RunEnded]) -> None:
        """`runs`: in all rounds; `earlier`: those that ended before this process."""
        self._stream = stream
        self._terminal = stream.isatty()
        self._runs = runs
        self._done = len(earlier)
        self._seconds = [run.wall_seconds for run in earlier]
        self._line = ""
        self._what = ""

    def begins(self, plan: str, round_number: int, rounds: int) -> None:
        self._what = f"run {self._done + 1} of {self._runs}: {plan}, round {round_number} of {rounds}"
        self.at_step(None)

    def at_step(self, step: str | None) -> None:
        """On a terminal: redraws the line at the bottom."""
        if not self._terminal:
            return
        parts = [self._what, step or "starting", self._left()]
        width = shutil.get_terminal_size().columns
        line = ", ".join(part for part in parts if part)[: max(0, width - 1)]
        if line != self._line:
            self._erase()
            self._line = line
            self._stream.write("\r" + line)
            self._stream.flush()

    def ended(self, run: RunEnded, skipped: int = 0) -> None:
        """`skipped`: later runs of the plan that will not take place."""
        self._seconds.append(run.wall_seconds)
        self._done += 1
        self._runs -= skipped
        if run.status == "ok":
            typical = statistics.median(run.step_seconds)
            figures = f"{typical:.4g} s a step, {max(run.peak_memory_bytes_by_stage) / 1024**2:.0f} MiB"
        else:
            figures = f"{STATUS_WORDS[run.status]}: {run.error.partition(chr(10))[0]}"
        self.say(f"[{self._done}/{self._runs}] {run.plan}, round {run.round}: {figures}")

    def say(self, text: str) -> None:
        self._erase()
        self._stream.write(text + "\n")
        self._stream.flush()

    def close(self) -> None:
        self._erase()
        self._stream.flush()

    def _left(self) -> str:
        """From how long runs took so far; nothing before the first has ended."""
        if not self._seconds:
            return ""
        left = statistics.fmean(self._seconds) * (self._runs - self._done)
        return f"about {duration(left)} left"

    def _erase(self) -> None:
        if self._line:
            self._stream.write("\r\x1b[K")
            self._line = ""


class RunDisplay:
    """Takes the place of the launcher's display: keeps its messages in a file, and moves the progress on."""

    def __init__(self, progress: Progress, output: Path, steps: int) -> None:
        """`steps`: of the run, its warm-up included."""
        self._progress = progress
        self._tail = Tail(output / "metrics.jsonl")
        self._log = output / "launch.log"
        self._steps = steps
        self._step = 0
        self.messages: list[str] = []

    def rank_line(self, rank: int, line: str) -> None:
        """Only what is meant for people; the rest stays in the rank's log."""
        if line.startswith(MESSAGE) and not line.startswith(STEP):
            self.say(f"rank {rank}: {line.removeprefix(MESSAGE)}")

    def say(self, text: str) -> None:
        self.messages.append(text)
        with self._log.open("a", encoding="utf-8") as stream:
            stream.write(text + "\n")

    def refresh(self) -> None:
        self._step += len(self._tail.lines())
        if self._step:
            self._progress.at_step(f"step {self._step} of {self._steps}")

    def close(self) -> None:
        """Nothing: the progress goes on."""
