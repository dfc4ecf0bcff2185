"""Locks between processes, of one host or several. They save work; nothing in the cache is wrong without
them.

A lock is a file that the kernel holds for a process (flock): it goes when the process does, however it
ends. On shared folders, NFS from version 4 on keeps such locks between hosts. A file system without them
refuses; then everybody goes ahead, and what two have made twice is the same.
"""

from __future__ import annotations

import errno
import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_UNSUPPORTED = {errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL}


class Lock:
    """One lock file, in the hand of this object or not."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._descriptor: int | None = None

    def take(self, *, shared: bool = False, wait: bool = False) -> bool:
        """Whether it is held now. `shared`: beside others that share it."""
        if self._descriptor is not None:
            return True
        self.path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        try:
            fcntl.flock(
                descriptor, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | (0 if wait else fcntl.LOCK_NB)
            )
        except BlockingIOError:
            os.close(descriptor)
            return False
        except OSError as error:
            if error.errno not in _UNSUPPORTED:
                os.close(descriptor)
                raise
        self._descriptor = descriptor
        return True

    def release(self) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None


def use_lock(folder: Path) -> Lock:
    """Shared by all who read or fill a cache; pruning has it alone."""
    return Lock(folder / "locks" / "use")


@contextmanager
def held(path: Path, *, shared: bool = False) -> Iterator[None]:
    """Waits for the lock, and holds it inside."""
    lock = Lock(path)
    lock.take(shared=shared, wait=True)
    try:
        yield
    finally:
        lock.release()
