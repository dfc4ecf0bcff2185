"""Loader processes: how they are started, and that they end with the process that started them.

They come from a fork server. Plain fork is out: the training process runs threads (collectives, OpenMP,
the accelerator's driver), and a lock that one of them holds at the moment of the fork stays locked in
the child. Spawning is safe but pays for a new interpreter and `import torch` in each worker; the server
pays once a rank, then forks a process that has no threads and no accelerator.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import threading
import types
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing import forkserver, resource_tracker
from multiprocessing.connection import wait
from multiprocessing.context import BaseContext


def worker_context() -> BaseContext:
    """The fork server's context; the server imports what workers need before it forks.

    A scheduler's SIGTERM goes to all processes of a rank, also where it finishes its step first: the server
    and the workers, which inherit what is blocked, do not hear it, and end with the training process."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["vdsgen.model.data.loader"])
    resource_tracker.ensure_running()  # unblocks the signal when it starts its process
    heard = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    try:
        forkserver.ensure_running()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, heard)
    return context


@contextmanager
def without_main_module() -> Iterator[None]:
    """Processes that start inside do not import the main module again.

    multiprocessing runs the main module's top level in every child, so that objects of classes defined
    there can be unpickled. Nothing of ours is defined there, and the training entrypoint imports
    DeepSpeed: seconds for each worker.
    """
    main = sys.modules["__main__"]
    sys.modules["__main__"] = types.ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = main


def begin_worker(_worker: int) -> None:
    """Runs first in each loader process (`worker_init_fn`). DataLoader has set torch to one thread."""
    # An interrupt at the terminal goes to all processes; the training process ends the workers.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, name="end with parent", daemon=True).start()


def _end_with_parent() -> None:
    """DataLoader's own watchdog compares getppid(), which is the fork server's here: it would never see
    the training process die, and workers would outlive a killed rank for ever."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        wait([parent.sentinel])
        os._exit(1)
