"""Small files that are written whole: read again only once they have changed."""

from __future__ import annotations

import os
import stat
from pathlib import Path

MOST_BYTES = 64 * 1024**2


class SmallFile:
    """`changed()` first; `content` is then what it holds."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.content: bytes | None = None
        """None: there is none, or it cannot be read."""
        self.written_at = 0.0
        """Seconds since 1970, by the clock of whoever keeps the file."""
        self._seen: tuple[int, ...] | None = None

    def changed(self) -> bool:
        """Since the last call; reads it where it has."""
        try:
            status = self.path.stat()
        except OSError:
            was, self._seen, self.content = self._seen, None, None
            return was is not None
        seen = (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns)
        if seen == self._seen:
            return False
        self._seen, self.written_at = seen, status.st_mtime
        self.content = _content(self.path, status)
        return True


def _content(path: Path, status: os.stat_result) -> bytes | None:
    """Of ordinary files alone: whoever opens a pipe waits."""
    if not stat.S_ISREG(status.st_mode) or status.st_size > MOST_BYTES:
        return None
    try:
        return path.read_bytes()
    except OSError:
        return None
