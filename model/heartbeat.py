"""What this rank does at the moment, shown once a second in a file that launching watches.

A thread of its own writes it, so that steps pay nothing: they only say what they begin. When the process is
stopped, or something holds the interpreter, the beats stop; when a rank waits for another one they go on and
say in which step and activity it waits.
"""

from __future__ import annotations

import contextlib
import faulthandler
import os
import signal
import socket
import threading
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Protocol

from vdsgen.spec.heartbeat import BEAT_SECONDS, DONE_PHASE, Beat, beat_file
from vdsgen.spec.run import LAUNCH_ID, STACKS_SIGNAL


class ShowsActivity(Protocol):
    """A step's clock."""

    @property
    def activity(self) -> str: ...
    @property
    def changes(self) -> int: ...


class Heart:
    """One a rank; `begin` and `come_on` cost next to nothing."""

    def __init__(self, clock_seconds: float = BEAT_SECONDS) -> None:
        self._every_seconds = clock_seconds
        self._phase, self._step, self._begun, self._since = "starting", 0, 0, time.monotonic()
        self._come_on = 0
        self._clock: ShowsActivity | None = None
        self._longest: dict[str, tuple[int, float]] = {}
        """Phase -> how often it has ended, and the longest it took."""
        self._tick = 0
        self._ended = threading.Event()
        self._descriptor: int | None = None
        self._thread: threading.Thread | None = None
        self._rank, self._launch, self._host = 0, "", ""

    def start(self, run: Path, environment: Mapping[str, str]) -> None:
        """Without effect where the file cannot be made: a run that nobody watches is a run all the same."""
        self._rank = int(environment.get("RANK", "0"))
        self._launch = environment.get(LAUNCH_ID, "")
        self._host = socket.gethostname()
        path = beat_file(run, self._rank)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o644)
        except OSError:
            return
        self._thread = threading.Thread(target=self._beat_on, name="heartbeat", daemon=True)
        self._thread.start()

    def watch_steps(self, clock: ShowsActivity) -> None:
        self._clock = clock

    def begin(self, phase: str, step: int = 0) -> None:
        """The rank begins something else: on every rank alike, in the same order."""
        now = time.monotonic()
        times, longest = self._longest.get(self._phase, (0, 0.0))
        # The first of its kind compiles, allocates and connects.
        taken = now - self._since if times < 2 else max(longest, now - self._since)
        self._longest[self._phase] = (times + 1, taken)
        self._phase, self._step, self._since = phase, step, now
        self._begun += 1

    @contextlib.contextmanager
    def during(self, phase: str, step: int = 0) -> Iterator[None]:
        """`begin`, and back to what it was in the end."""
        before = self._phase, self._step
        self.begin(phase, step)
        yield
        self.begin(*before)

    def come_on(self) -> None:
        """A phase that may take hours shows that it does something."""
        self._come_on += 1

    def end(self) -> None:
        self.begin(DONE_PHASE, self._step)
        self._write()

    def stop(self) -> None:
        """For tests: the thread ends."""
        self._ended.set()
        if self._thread is not None:
            self._thread.join()
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def beat(self) -> Beat:
        clock = self._clock
        return Beat(
            rank=self._rank,
            pid=os.getpid(),
            host=self._host,
            launch=self._launch,
            tick=self._tick,
            phase=self._phase,
            begun=self._begun,
            step=self._step,
            activity="" if clock is None else clock.activity,
            changes=self._come_on + (0 if clock is None else clock.changes),
            longest_seconds={phase: round(seconds, 3) for phase, (_, seconds) in list(self._longest.items())},
        )

    def _beat_on(self) -> None:
        while True:
            self._tick += 1
            self._write()
            if self._ended.wait(self._every_seconds):
                return

    def _write(self) -> None:
        """One write of one line, never shorter than the one before: what is read is whole."""
        if self._descriptor is None:
            return
        text = self.beat().text().encode()
        with contextlib.suppress(OSError):
            size = os.fstat(self._descriptor).st_size
            os.pwrite(self._descriptor, text[:-1].ljust(max(0, size - 1)) + b"\n", 0)


HEART = Heart()
"""Of this process."""


def write_stacks_when_asked() -> None:
    """STACKS_SIGNAL writes the Python stack of every thread into this rank's log, and nothing else happens:
    from the interpreter's C code, also where Python itself does not come on."""
    faulthandler.register(getattr(signal, STACKS_SIGNAL), all_threads=True, chain=False)
