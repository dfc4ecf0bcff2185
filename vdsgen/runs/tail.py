"""Reading files while others write them."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

MOST_LINE_BYTES = 4 * 1024**2
"""What goes on for longer without a newline is no line of ours, and is left out."""
READ_BYTES = 16 * 1024**2
"""In one read."""


class Tail:
    """The lines that a growing file has gained since the last look; the file may not exist yet."""

    def __init__(self, path: Path, *, last_bytes: int | None = None) -> None:
        """`last_bytes`: of what is there already, only the lines that begin in so many bytes at its end."""
        self.path = path
        self._position = 0
        self._file: tuple[int, int] | None = None
        self._partial = b""
        self._skipping = False
        self.began_anew = False
        """The last look found another file under the name, or a shorter one: what was read before does not
        hold any more."""
        if last_bytes is not None and path.exists():
            status = path.stat()
            self._file = (status.st_dev, status.st_ino)
            self._position = max(0, status.st_size - last_bytes)
            self._skipping = self._position > 0 and last_bytes > 0

    def lines(self) -> list[str]:
        """Complete lines only; what is after the last newline waits for the next look."""
        return [line for batch in self.batches() for line in batch]

    def batches(self) -> Iterator[list[str]]:
        """The same, READ_BYTES at a time: large files need not be in memory. Go through all of them."""
        self.began_anew = False
        try:
            # Whoever opens a pipe waits for its writer.
            descriptor = os.open(self.path, os.O_RDONLY | os.O_NONBLOCK)
        except FileNotFoundError:
            if self._file is not None:
                self._begin_anew(None)
            return
        except OSError:
            return
        try:
            yield from self._read(descriptor)
        except OSError:
            return
        finally:
            os.close(descriptor)

    def _read(self, descriptor: int) -> Iterator[list[str]]:
        """Raises OSError."""
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            return
        file = (status.st_dev, status.st_ino)
        if self._file is not None and (file != self._file or status.st_size < self._position):
            # A run that goes on drops the lines past its checkpoint: it writes a new file.
            self._begin_anew(file)
        self._file = file
        os.lseek(descriptor, self._position, os.SEEK_SET)
        while content := os.read(descriptor, READ_BYTES):
            self._position += len(content)
            yield self._complete(content)

    def _begin_anew(self, file: tuple[int, int] | None) -> None:
        self._position, self._partial, self._file, self._skipping = 0, b"", file, False
        self.began_anew = True

    def _complete(self, content: bytes) -> list[str]:
        *lines, self._partial = (self._partial + content).split(b"\n")
        if self._skipping and lines:
            lines, self._skipping = lines[1:], False
        if len(self._partial) > MOST_LINE_BYTES:
            self._partial, self._skipping = b"", True
        return [line.decode(errors="replace") for line in lines if len(line) <= MOST_LINE_BYTES]


def last_lines(path: Path, count: int, *, most_bytes: int = 65536) -> list[str]:
    """The last lines of a file that are not blank, [] where it cannot be read."""
    try:
        with path.open("rb") as stream:
            size = stream.seek(0, 2)
            stream.seek(max(0, size - most_bytes))
            text = stream.read().decode(errors="replace")
    except OSError:
        return []
    return [line.rstrip() for line in text.splitlines() if line.strip()][-count:]
