"""Reading files, measured: how many bytes a thread has read, and how long it waited for them.

Decoders read through `MeasuredFile`, the cache through `read_at`. What a thread reads counts for it alone.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

READ_AHEAD_BYTES = 2**18
"""What decoders ask for at once."""


class _Meter(threading.local):
    seconds = 0.0
    read_bytes = 0


class _Disk:
    """Of this process."""

    delay: Callable[[int], None] | None = None


_meter, _disk = _Meter(), _Disk()


def read_so_far() -> tuple[float, int]:
    """Seconds and bytes that this thread has spent on reading."""
    return _meter.seconds, _meter.read_bytes


def delay_reads(delay: Callable[[int], None] | None) -> None:
    """For measurements of slow disks: calls `delay` with the size of each read of this process, and counts
    its time as the disk's. None ends it."""
    _disk.delay = delay


def _measured(read: Callable[..., bytes], *arguments: int) -> bytes:
    began = time.perf_counter()
    found = read(*arguments)
    if _disk.delay is not None:
        _disk.delay(len(found))
    _meter.seconds += time.perf_counter() - began
    _meter.read_bytes += len(found)
    return found


def read_at(descriptor: int, size: int, offset: int) -> bytes:
    """Up to `size` bytes, fewer at the file's end alone."""
    parts = []
    while size > 0:
        part = _measured(os.pread, descriptor, size, offset)
        if not part:
            break
        parts.append(part)
        size, offset = size - len(part), offset + len(part)
    return b"".join(parts)


class MeasuredFile:
    """A file for PyAV, which takes anything that reads and seeks."""

    def __init__(self, path: Path) -> None:
        self.name = str(path)
        # Unbuffered: FFmpeg has a buffer of its own.
        self._file: Any = path.open("rb", buffering=0)

    def read(self, size: int = -1) -> bytes:
        return _measured(self._file.read, size)

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        position: int = self._file.seek(offset, whence)
        return position

    def tell(self) -> int:
        position: int = self._file.tell()
        return position

    def close(self) -> None:
        self._file.close()

    def __enter__(self) -> MeasuredFile:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
