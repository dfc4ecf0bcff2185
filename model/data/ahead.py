"""Taking samples over ahead of the step: by threads of the training process, which compute lets run."""

from __future__ import annotations

import queue
import threading
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Generic, TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


class TakenAhead(Generic[Item]):
    """What an iterator gives, taken from it by a thread, `depth` items ahead.

    What comes from another process costs milliseconds to take over (a socket, a descriptor and a mapping
    for each tensor, and the sender has to be scheduled): here training does not wait for it.
    """

    def __init__(self, source: Iterator[Item], depth: int) -> None:
        self._ready: queue.Queue[Item | BaseException] = queue.Queue(depth)
        self._ended = threading.Event()
        self._thread = threading.Thread(
            target=_take, args=(source, self._ready, self._ended), name="take ahead", daemon=True
        )
        self._thread.start()

    def __iter__(self) -> TakenAhead[Item]:
        return self

    def __next__(self) -> Item:
        found = self._ready.get()
        if isinstance(found, BaseException):
            self._ready.put(found)  # for whoever asks again
            raise found
        return found

    def close(self) -> None:
        """The thread ends with the item that it is waiting for."""
        self._ended.set()

    def __del__(self) -> None:
        self.close()


def _take(source: Iterator[Item], ready: queue.Queue[Item | BaseException], ended: threading.Event) -> None:
    """Not a method: a thread that held its owner would keep it, and itself, for ever."""
    while not ended.is_set():
        try:
            found: Item | BaseException = next(source)
        except BaseException as error:  # StopIteration too: all are raised where items are asked for
            found = error
        while not ended.is_set():
            try:
                ready.put(found, timeout=0.1)
                break
            except queue.Full:
                continue
        if isinstance(found, BaseException):
            return


def in_threads(
    function: Callable[[Item], Result], items: Iterator[Item], threads: int, ahead: int
) -> Iterator[Result]:
    """`function` of each item, in order, by as many threads; `ahead` results at most are begun before they
    are asked for."""
    pool = ThreadPoolExecutor(threads, thread_name_prefix="loader")
    begun: deque[Future[Result]] = deque()
    try:
        for item in items:
            begun.append(pool.submit(function, item))
            if len(begun) > ahead:
                yield begun.popleft().result()
        while begun:
            yield begun.popleft().result()
    finally:
        pool.shutdown(wait=False, cancel_futures=True)
