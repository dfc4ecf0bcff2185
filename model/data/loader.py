"""Micro-batches for one data rank: decoded in worker processes, in an order that nothing can change."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from types import TracebackType
from typing import Any, Protocol, Self

import torch
from torch.utils.data import DataLoader, Dataset, Sampler

from vdsgen.errors import VdsgenError
from vdsgen.model.data.ahead import InThreads, TakenAhead
from vdsgen.model.data.buckets import size_order
from vdsgen.model.data.index import NAMED_AT_MOST, Index
from vdsgen.model.data.order import Draw, Share
from vdsgen.model.data.samples import MicroBatch, Prepared
from vdsgen.model.data.video import printable
from vdsgen.model.data.waiting import Waiting
from vdsgen.model.data.workers import begin_worker, without_main_module, worker_context
from vdsgen.spec.data import Data

log = logging.getLogger("vdsgen.data")


class Reads(Protocol):
    """What a source reads clips with, and knows of them."""

    @property
    def index(self) -> Index: ...
    @property
    def data(self) -> Data: ...
    @property
    def seed(self) -> int: ...


class Prepares(Protocol):
    """What loaders run."""

    def prepare(self, draw: Draw) -> Prepared: ...


class Source(Protocol):
    """Where samples come from: a pure function of their place in the run, in two halves."""

    @property
    def reader(self) -> Reads: ...
    @property
    def preparation(self) -> Prepares:
        """The half that loader workers do."""
        ...

    @property
    def loads_in_threads(self) -> bool:
        """That half leaves the interpreter to others most of the time: loaders need be no processes."""
        ...

    def finish(self, prepared: Prepared) -> Any:
        """The half that stays in the training process."""
        ...

    def stacked(self, samples: list[Any]) -> MicroBatch: ...


class Batches:
    """An iterator of micro-batches, as DeepSpeed's engines take it. Close it, or use it in a `with`.

    `waiting` counts the time that the consumer spent inside `next`, and what it was spent on; `skipped` names
    the clips that turned out to be unreadable, with how often each was passed over.
    """

    def __init__(
        self, source: Source, share: Share, draws: Iterator[Draw], *, pin_memory: bool = False
    ) -> None:
        self.waiting = Waiting()
        self.skipped: dict[str, int] = {}
        self._source = source
        self._share = share
        self._pin_memory = pin_memory
        self._prepared: Iterator[Prepared | VdsgenError] | None = _start(
            source, draws, ahead=share.micro_batch_size
        )

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> MicroBatch:
        samples = [self._next_sample() for _ in range(self._share.micro_batch_size)]
        began = time.perf_counter()
        batch = self._pinned(self._source.stacked(samples))
        self.waiting.hand_over_seconds += time.perf_counter() - began
        return batch

    def close(self) -> None:
        """Ends the worker processes. The iterator is exhausted afterwards."""
        if isinstance(self._prepared, TakenAhead | InThreads):
            self._prepared.close()
        self._prepared = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _next_sample(self) -> Any:
        if self._prepared is None:
            raise StopIteration
        began = time.perf_counter()
        try:
            prepared = next(self._prepared)
        except (RuntimeError, ConnectionError, EOFError) as error:
            # The last two: it died while it handed over a tensor's memory.
            raise _worker_died(error) from error
        if isinstance(prepared, VdsgenError):
            raise prepared
        got = time.perf_counter()
        self.waiting.count(prepared.spent, began, got)
        for case in prepared.clip.skipped:
            self._count(case.path, case.reason)
        if prepared.sample is not None:
            return prepared.sample
        sample = self._source.finish(prepared)
        if prepared.pair is None:
            self.waiting.encoding_seconds += time.perf_counter() - got
        else:
            self.waiting.hand_over_seconds += time.perf_counter() - got
        return sample

    def _pinned(self, batch: MicroBatch) -> MicroBatch:
        inputs, target = batch
        return (_pinned(inputs), _pinned(target)) if self._pin_memory else (inputs, target)

    def _count(self, path: str, reason: str) -> None:
        if path not in self.skipped and len(self.skipped) < NAMED_AT_MOST:
            log.warning("skipped %s: %s; the next clip takes its place", printable(path), reason)
        self.skipped[path] = self.skipped.get(path, 0) + 1


def batches_for(
    source: Source,
    share: Share,
    *,
    start_step: int = 0,
    stop_step: int | None = None,
    pin_memory: bool = False,
) -> Batches:
    """The micro-batches of one data rank from `start_step` on, `gradient_accumulation_steps` a step.

    What they hold is a function of the experiment, the clips and the sample's place in the run alone:
    the same for any number of workers, and for a run that resumes at `start_step`.
    `pin_memory` where the accelerator copies faster from pinned memory and nothing clones the batch.
    """
    reader = source.reader
    order = size_order(reader.index, reader.data, reader.seed, share.units)
    draws = share.draws(order, start_step, stop_step)
    return Batches(source, share, draws, pin_memory=pin_memory)


class _Prepared(Dataset[Prepared | VdsgenError]):
    """What workers run. An error of the user's making comes back as a value, not as a traceback."""

    def __init__(self, preparation: Prepares) -> None:
        self.preparation = preparation

    def __getitem__(self, draw: Draw) -> Prepared | VdsgenError:
        try:
            return self.preparation.prepare(draw)
        except VdsgenError as error:
            return VdsgenError(error.message, remedy=error.remedy)


class _InOrder(Sampler[Draw]):
    def __init__(self, draws: Iterator[Draw]) -> None:
        self.draws = draws

    def __iter__(self) -> Iterator[Draw]:
        return self.draws


def _start(source: Source, draws: Iterator[Draw], ahead: int) -> Iterator[Prepared | VdsgenError]:
    """One task a sample, not a micro-batch: all workers then work on the next micro-batch."""
    data, prepared = source.reader.data, _Prepared(source.preparation)
    if not data.workers:
        return map(prepared.__getitem__, draws)
    if source.loads_in_threads:
        return InThreads(prepared.__getitem__, draws, data.workers, data.workers * data.prefetch)
    loader = DataLoader(
        prepared,
        batch_size=None,
        sampler=_InOrder(draws),
        collate_fn=_as_it_is,  # type: ignore[arg-type]  # one sample, since batch_size is None
        # Otherwise DataLoader draws its workers' seeds from torch's global generator.
        generator=torch.Generator(),
        num_workers=data.workers,
        prefetch_factor=data.prefetch,
        multiprocessing_context=worker_context(),
        worker_init_fn=begin_worker,
    )
    with without_main_module():
        return TakenAhead(iter(loader), ahead)


def _as_it_is(prepared: Prepared | VdsgenError) -> Prepared | VdsgenError:
    return prepared


def _pinned(tensors: Any) -> Any:
    if isinstance(tensors, torch.Tensor):
        return tensors.pin_memory()
    return tuple(x.pin_memory() for x in tensors)


def _worker_died(error: Exception) -> VdsgenError:
    words = (str(error).strip() or type(error).__name__).splitlines()[0]
    return VdsgenError(
        f"a loader process ended unexpectedly: {words}",
        remedy="'Killed' means that memory ran out, 'Bus error' that /dev/shm is too small for "
        "data.prefetch; data.workers: 0 decodes in the training process",
    )
