"""What ties a host to its launcher: bytes down the host's standard input, which say that somebody is there.

The end of that input says that nobody is. A network that is gone says nothing at all, for many minutes: so a
host that hears nothing takes it for the same.
"""

from __future__ import annotations

import contextlib
import os
import select
import time
from typing import IO

BEAT_SECONDS = 2.0
SILENCE_SECONDS = 60.0
"""Without a beat, before a host gives its launcher up. Longer than a network's hiccup."""
HERE, AWAY = b".", b"z"
"""A beat; and the last one before the launcher is suspended, which is no reason to end anything."""


class Beats:
    """The launcher's end, for one host."""

    def __init__(self, stream: IO[bytes]) -> None:
        self._stream = stream
        self._due = 0.0

    def beat(self) -> None:
        """Does nothing between two beats. A pipe holds those a dead connection does not take, for days."""
        if time.monotonic() >= self._due:
            self._say(HERE)
            self._due = time.monotonic() + BEAT_SECONDS

    def goes_away(self) -> None:
        self._say(AWAY)
        self._due = 0.0

    def _say(self, what: bytes) -> None:
        # The host has ended, or the connection: both are seen elsewhere.
        with contextlib.suppress(OSError, ValueError):
            os.write(self._stream.fileno(), what)


class Tie:
    """The host's end."""

    def __init__(self, descriptor: int, silence_seconds: float) -> None:
        self._descriptor = descriptor
        self._silence_seconds = silence_seconds
        self._heard_at: float | None = None
        """None: the launcher has never said anything, or has gone away for a while."""

    def is_cut(self) -> bool:
        """Whether the launcher, or the way to it, is gone."""
        readable, _, _ = select.select([self._descriptor], [], [], 0)
        if readable:
            heard = os.read(self._descriptor, 4096)
            if not heard:
                return True
            self._heard_at = None if heard.endswith(AWAY) else time.monotonic()
        return self._heard_at is not None and time.monotonic() - self._heard_at > self._silence_seconds
