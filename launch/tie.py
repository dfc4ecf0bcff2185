"""What ties a host to its launcher: words down the host's standard input, a line each.

The end of that input says that nobody is there any more. A network that is gone says nothing at all, for many
minutes: so the launcher says that it is here every few seconds, and a host that hears nothing gives it up.
"""

from __future__ import annotations

import contextlib
import os
import select
import time
from typing import IO

BEAT_SECONDS = 2.0
SILENCE_SECONDS = 60.0
"""Without a word, before a host gives its launcher up. Longer than a network's hiccup."""
HERE, AWAY = "here", "away"
"""Said now and then; and last, before the launcher is suspended, which is no reason to end anything."""


class LaunchersEnd:
    """For one host."""

    def __init__(self, stream: IO[bytes]) -> None:
        self._stream = stream
        self._due = 0.0

    def beat(self) -> None:
        """Does nothing between two beats. The pipe holds those a dead connection does not take, for hours."""
        if time.monotonic() >= self._due:
            self.say(HERE)
            self._due = time.monotonic() + BEAT_SECONDS

    def go_away(self) -> None:
        self.say(AWAY)
        self._due = 0.0

    def say(self, word: str) -> None:
        # The host has ended, or the connection: both are seen elsewhere.
        with contextlib.suppress(OSError, ValueError):
            os.write(self._stream.fileno(), f"{word}\n".encode())


class HostsEnd:
    """Of standard input, as a descriptor."""

    def __init__(self, descriptor: int, silence_seconds: float = SILENCE_SECONDS) -> None:
        self._descriptor = descriptor
        self._silence_seconds = silence_seconds
        self._heard_at: float | None = None
        """None: the launcher has never said anything, or has gone away for a while."""

    def words(self) -> list[str] | None:
        """Said since the last call; None where the launcher, or the way to it, is gone."""
        words = []
        readable, _, _ = select.select([self._descriptor], [], [], 0)
        if readable:
            content = os.read(self._descriptor, 4096)
            if not content:
                return None
            words = content.decode(errors="replace").split()
            self._heard_at = None if words[-1:] == [AWAY] else time.monotonic()
        if self._heard_at is not None and time.monotonic() - self._heard_at > self._silence_seconds:
            return None
        return words
