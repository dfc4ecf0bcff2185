"""What files hold: a file's content by its hash, remembered so that nothing is read twice.

A file is taken for the one that was hashed if its size, its modification time and its inode are the same:
renaming keeps all three, and copying into its place changes them. What was changed while the clock still
showed the time of its last modification could be missed: such a file is hashed again (as git does,
Documentation/technical/racy-git.txt). `remembered=False` hashes everything.
"""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from vdsgen.files import write_atomically
from vdsgen.model.cache.locks import held

FILE = "files.txt"
"""In the cache's folder: a line a file, its hash, inode, size and time."""
RACY_SECONDS = 2.0
"""Coarsest clock of the file systems in use."""
_CHUNK_BYTES = 2**20

Status = tuple[int, int, int]
"""Inode, size in bytes, time of modification in nanoseconds."""


class Contents:
    """The hashes of files, in one process. `save` keeps them for the next."""

    def __init__(self, cache: Path, *, remembered: bool = True) -> None:
        self._file = cache / FILE
        self._known = _read(self._file) if remembered else {}
        self._new: dict[Status, str] = {}

    def of(self, path: Path) -> str:
        """Hexadecimal SHA-256. Raises OSError."""
        status = status_of(path)
        known = self._known.get(status)
        if known is not None:
            return known
        began = time.time()
        digest = hash_of(path)
        if status_of(path) == status and status[2] / 1e9 < began - RACY_SECONDS:
            self._known[status] = self._new[status] = digest
        return digest

    def of_all(self, paths: Iterable[Path]) -> list[str | OSError]:
        """Of each, in order, by several threads: the hash, or why there is none."""

        def one(path: Path) -> str | OSError:
            try:
                return self.of(path)
            except OSError as error:
                return error

        with ThreadPoolExecutor(min(16, 2 * (os.cpu_count() or 1)), thread_name_prefix="hash") as pool:
            return list(pool.map(one, paths))

    def remember(self, path: Path, digest: str) -> None:
        """For who has just written the file, and knows that nobody else writes it."""
        status = status_of(path)
        self._known[status] = self._new[status] = digest

    def forget(self, path: Path) -> None:
        self._known.pop(status_of(path), None)

    def save(self) -> None:
        """Adds what is new to the file, beside what others have added meanwhile."""
        if not self._new:
            return
        with held(self._file.parent / "files.lock"):
            merged = _read(self._file) | self._new
            lines = (
                f"{digest} {inode} {size} {time_ns}" for (inode, size, time_ns), digest in merged.items()
            )
            write_atomically(self._file, ("\n".join(lines) + "\n").encode())
        self._new.clear()


def hash_of(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while chunk := stream.read(_CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()


def status_of(path: Path) -> Status:
    found = path.stat()
    return found.st_ino, found.st_size, found.st_mtime_ns


def _read(file: Path) -> dict[Status, str]:
    """Damaged lines are forgotten: the worst that follows is hashing again."""
    known: dict[Status, str] = {}
    try:
        lines = file.read_text(encoding="ascii", errors="replace").splitlines()
    except FileNotFoundError:
        return known
    for line in lines:
        words = line.split()
        if len(words) == 4 and len(words[0]) == 64 and all(word.isdecimal() for word in words[1:]):
            known[int(words[1]), int(words[2]), int(words[3])] = words[0]
    return known
