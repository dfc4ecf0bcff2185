"""Ending a run early, with a checkpoint of its last step: on request, or when a scheduler says so."""

from __future__ import annotations

import os
import signal
import time
from enum import IntEnum
from pathlib import Path
from types import FrameType

from vdsgen.spec.run import STOP_REQUEST

SAME_SECONDS = 5.0
"""Signals that come so close to each other are one: schedulers tell a job's script and its ranks."""
TERMINATED = 128 + signal.SIGTERM
"""Exit code of a run that a signal has ended, after a checkpoint: schedulers start such jobs again."""


class Wish(IntEnum):
    """What becomes of the run after its step. Where ranks wish different things, the highest counts."""

    GO_ON = 0
    STOP = 1
    """RUN/stop-request is there."""
    STOP_FOR_NOW = 2
    """SIGTERM came."""


class Termination:
    """Takes SIGTERM for a wish. Without `listen` it ends the process at once, as ever."""

    def __init__(self) -> None:
        self._first_at: float | None = None

    def listen(self) -> None:
        """From now on. A second signal, SAME_SECONDS later or more, ends the process at once."""
        signal.signal(signal.SIGTERM, self._hear)

    @property
    def came(self) -> bool:
        return self._first_at is not None

    def _hear(self, number: int, _frame: FrameType | None) -> None:
        now = time.monotonic()
        if self._first_at is None:
            self._first_at = now
        elif now - self._first_at >= SAME_SECONDS:
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)


TERMINATION = Termination()
"""Of this process."""


def wish_of(run: Path, *, first_rank: bool) -> Wish:
    """What this rank knows of. Rank 0 alone reads requests."""
    if TERMINATION.came:
        return Wish.STOP_FOR_NOW
    return Wish.STOP if first_rank and take_stop_request(run) else Wish.GO_ON


def take_stop_request(run: Path) -> bool:
    """Whether somebody has asked for the end since this was last called; removes RUN/stop-request."""
    try:
        (run / STOP_REQUEST).unlink()
    except OSError:
        return False
    return True
