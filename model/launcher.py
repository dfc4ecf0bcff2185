"""A rank's tie to the process that launched it."""

from __future__ import annotations

import os
import select
import threading
from collections.abc import Mapping

from vdsgen.spec.run import LAUNCHER_PROCESS


def end_with_launcher(environment: Mapping[str, str]) -> None:
    """Ends this process when `vdsgen launch` is gone, however it went: nobody would end the ranks any more,
    and they would keep their devices. Without effect on ranks that were started in another way."""
    process = environment.get(LAUNCHER_PROCESS, "")
    if not process.isdecimal():
        return
    try:
        descriptor = os.pidfd_open(int(process))
    except ProcessLookupError:
        os._exit(1)
    threading.Thread(target=_wait_and_end, args=(descriptor,), name="end with launcher", daemon=True).start()


def _wait_and_end(descriptor: int) -> None:
    poll = select.poll()
    # Readable once the process has ended: pidfd_open(2).
    poll.register(descriptor, select.POLLIN)
    poll.poll()
    os._exit(1)
