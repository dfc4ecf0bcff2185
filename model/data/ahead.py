"""Taking samples over ahead of the step: by threads of the training process, which compute lets run."""

from __future__ import annotations

import queue
import threading
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
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


class InThreads(Generic[Item, Result]):
    """`function` of each item, in order, by as many threads; `ahead` results are begun before they are asked
    for, the first ones at once."""

    def __init__(
        self, function: Callable[[Item], Result], items: Iterator[Item], threads: int, ahead: int
    ) -> None:
        self._function, self._items = function, items
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="loader")
        self._begun: deque[Future[Result]] = deque()
        for _ in range(ahead):
            self._begin()

    def _begin(self) -> None:
        for item in islice(self._items, 1):
            self._begun.append(self._pool.submit(self._function, item))

    def __iter__(self) -> InThreads[Item, Result]:
        return self

    def __next__(self) -> Result:
        self._begin()
        if not self._begun:
            raise StopIteration
        return self._begun.popleft().result()

    def close(self) -> None:
        """Returns when what was being made is made, and nothing more will be."""
        self._pool.shutdown(wait=True, cancel_futures=True)

    def __del__(self) -> None:
        self._pool.shutdown(wait=False, cancel_futures=True)
