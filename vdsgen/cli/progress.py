"""How far a command is, for people who wait."""

from __future__ import annotations

import sys
import time


class ProgressLine:
    """Share done and time left, on standard error where that is a terminal."""

    def __init__(self, what: str) -> None:
        self._what = what
        self._began = time.monotonic()
        self._shown = False

    def __call__(self, share: float) -> None:
        if not sys.stderr.isatty():
            return
        elapsed = time.monotonic() - self._began
        left = f", about {elapsed * (1 - share) / share:.0f} s left" if share > 0 else ""
        sys.stderr.write(f"\r\x1b[K{self._what}: {share:.0%}{left}")
        sys.stderr.flush()
        self._shown = True

    def erase(self) -> None:
        if self._shown:
            sys.stderr.write("\r\x1b[K")
            sys.stderr.flush()
