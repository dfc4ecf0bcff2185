"""What rendering a lab's own template may use, so that a mistake in it ends instead of filling memory."""

from __future__ import annotations

import contextlib
import resource
import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from types import FrameType

from vdsgen.errors import VdsgenError

SECONDS = 5.0
"""Bundled templates take milliseconds."""
MEMORY_BYTES = 512 * 1024**2
"""Beyond what the process holds already."""
OUTPUT_CHARACTERS = 4 * 1024**2


class TookTooLong(BaseException):
    """Raised into a rendering whose time is up. jinja2 takes any Exception while it folds constants for a
    sign that they are none, and goes on."""


@contextlib.contextmanager
def limited(what: str) -> Iterator[None]:
    """Limit time and memory inside the `with`; raises VdsgenError naming `what` where one is passed.

    Enforced by the kernel's timer and address-space limit, so no construct of the template language gets
    around it. The timer needs the main thread; elsewhere only memory is limited.
    """
    try:
        with _address_space(MEMORY_BYTES), _timer(SECONDS):
            yield
    except TookTooLong:
        raise VdsgenError(
            f"{what}: rendering took over {SECONDS:g} s of processor time", remedy="look for a loop"
        ) from None
    except MemoryError:
        raise VdsgenError(
            f"{what}: rendering took over {MEMORY_BYTES // 1024**2} MiB of memory",
            remedy="look for text that grows in a loop or by repetition",
        ) from None


@contextlib.contextmanager
def _timer(seconds: float) -> Iterator[None]:
    """Of the processor's time, not the clock's: a busy machine is no reason to stop."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(_signum: int, _frame: FrameType | None) -> None:
        raise TookTooLong

    handler = signal.signal(signal.SIGVTALRM, stop)
    signal.setitimer(signal.ITIMER_VIRTUAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.signal(signal.SIGVTALRM, handler)


@contextlib.contextmanager
def _address_space(growth_bytes: int) -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[0])
    except (OSError, ValueError):  # no /proc: the timer and the cap on output remain
        yield
        return
    limit = pages * resource.getpagesize() + growth_bytes
    for other in (soft, hard):
        limit = limit if other == resource.RLIM_INFINITY else min(limit, other)
    resource.setrlimit(resource.RLIMIT_AS, (limit, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))
