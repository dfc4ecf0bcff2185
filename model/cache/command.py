"""`vdsgen cache`: what an experiment's cache holds, filled by processes of this machine, checked or
pruned."""

from __future__ import annotations

import logging
import multiprocessing
import os
import time
import uuid
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field
from pathlib import Path

import torch

from vdsgen.errors import VdsgenError
from vdsgen.model.cache.content import Contents
from vdsgen.model.cache.families import encoders_of
from vdsgen.model.cache.fill import Made, Work, fill
from vdsgen.model.cache.progress import Notes, SharedProgress
from vdsgen.model.cache.prune import Pruned, prune
from vdsgen.model.cache.state import CacheState, cache_state, folder_of, hashes_of, missing_of
from vdsgen.model.cache.store import Store, open_store
from vdsgen.model.data.held_out import as_held_out, hold_out
from vdsgen.model.data.index import Index, scan
from vdsgen.model.data.workers import without_main_module
from vdsgen.spec.data import Data
from vdsgen.spec.experiment import Experiment

LOOK_SECONDS = 0.25

Progress = Callable[[float], None]
"""Is told the share that is done."""


@dataclass
class CacheReport:
    """What was found and done in one cache."""

    folder: Path
    needed: int
    there: int
    """Of what is needed, whole, before anything was made."""
    damaged: dict[str, str]
    """Path of a shard -> what is wrong with it."""
    shards: int
    stored_bytes: int
    unused: int
    """Entries that none of the experiments needs."""
    made: Made = field(default_factory=Made)
    unreadable: dict[str, str] = field(default_factory=dict)
    """Clip -> why it is in no cache."""
    pruned: Pruned | None = None
    seconds: float = 0.0

    @property
    def missing(self) -> int:
        return self.needed - self.there - self.made.entries

    @property
    def complete(self) -> bool:
        """Everything that can be encoded is there, and nothing is damaged."""
        return self.needed - self.there == 0 and not self.damaged


def check_caches(experiments: Sequence[Experiment], progress: Progress) -> list[CacheReport]:
    """Looks at every byte, and writes nothing but a mark beside a shard that is damaged."""
    return [_Cache(folder, several).check(progress) for folder, several in _by_folder(experiments).items()]


def fill_caches(
    experiments: Sequence[Experiment], workers: int | None, progress: Progress, *, pruning: bool
) -> list[CacheReport]:
    """Makes what is missing and, with `pruning`, removes what none of the experiments needs."""
    return [
        _Cache(folder, several).fill(workers, progress, pruning=pruning)
        for folder, several in _by_folder(experiments).items()
    ]


def _by_folder(experiments: Sequence[Experiment]) -> dict[Path, list[Experiment]]:
    found: dict[Path, list[Experiment]] = {}
    for experiment in experiments:
        if experiment.data.cache is None:
            raise VdsgenError(
                f"{experiment.name} has no cache: data.cache is not set",
                remedy="add to its data section `cache: {folder: FOLDER}`",
            )
        found.setdefault(folder_of(experiment.data), []).append(experiment)
    return found


class _Cache:
    """One folder and the experiments that have it."""

    def __init__(self, folder: Path, experiments: Sequence[Experiment]) -> None:
        self.folder = folder
        self.experiments = experiments

    def check(self, progress: Progress) -> CacheReport:
        store = open_store(self.folder, make=False)
        contents = Contents(self.folder, remembered=False)
        states = _all(self._states(contents))
        wrong = dict(store.damaged)
        names = sorted(store.manifests)
        for number, name in enumerate(names):
            damage = store.verify([name], contents)
            if damage:
                store.suspect(name)
            wrong |= damage
            progress((number + 1) / len(names))
        found = self._report(states, store, wrong)
        for name in wrong:
            store.forget(name)
        found.there = sum(key in store for key in _needed(states))
        return found

    def fill(self, workers: int | None, progress: Progress, *, pruning: bool) -> CacheReport:
        began = time.monotonic()
        store = open_store(self.folder, make=True)
        contents = Contents(self.folder)
        groups = self._states(contents)
        states = _all(groups)
        wrong = store.damaged | store.verify(store.manifests, contents)
        contents.save()
        found = self._report(states, store, wrong)
        store.retire(wrong)
        found.there = sum(key in store for key in _needed(states))
        for group in groups:
            # One experiment's encoders are loaded once, for all of its clips.
            made = _encode(missing_of(group, store), workers, progress)
            found.made.entries += made.entries
            found.made.failed |= made.failed
            store.refresh()
        found.unreadable |= found.made.failed
        if pruning:
            found.pruned = prune(store, contents, _needed(states))
        found.shards = len(store.manifests)
        found.stored_bytes = sum(manifest.size_bytes for manifest in store.manifests.values())
        found.unused = len(store.keys() - _needed(states))
        found.seconds = time.monotonic() - began
        return found

    def _states(self, contents: Contents) -> list[list[CacheState]]:
        """Of each experiment."""
        return [
            [_state(experiment, index, data, contents) for index, data in _clips_of(experiment)]
            for experiment in self.experiments
        ]

    def _report(self, states: Sequence[CacheState], store: Store, wrong: dict[str, str]) -> CacheReport:
        needed = _needed(states)
        return CacheReport(
            folder=self.folder,
            needed=len(needed),
            there=0,
            damaged={str(store.file(name)): reason for name, reason in wrong.items()},
            shards=len(store.manifests),
            stored_bytes=sum(manifest.size_bytes for manifest in store.manifests.values()),
            unused=len(store.keys() - needed),
            unreadable={path: reason for state in states for path, reason in _unreadable(state.index)},
        )


def _all(groups: Sequence[Sequence[CacheState]]) -> list[CacheState]:
    return [state for group in groups for state in group]


def _state(experiment: Experiment, index: Index, data: Data, contents: Contents) -> CacheState:
    hashes = hashes_of(index, contents, range(len(index.entries)))
    return cache_state(index, data, encoders_of(experiment), hashes)


def _clips_of(experiment: Experiment) -> list[tuple[Index, Data]]:
    """The clips that are trained on, and those that are held out where some are, each as they are read."""
    index, validation = scan(experiment.data), experiment.training.validation
    if validation is None:
        return [(index, experiment.data)]
    training, held_out = hold_out(index, experiment.data, validation)
    return [(training, experiment.data), (held_out, as_held_out(experiment.data))]


def _needed(states: Sequence[CacheState]) -> set[str]:
    return {key for state in states for key in state.needed}


def _unreadable(index: Index) -> list[tuple[str, str]]:
    return [(str(Path(index.folder) / case.path), case.reason) for case in index.skipped]


def devices() -> list[str]:
    """One for each accelerator, or the processor."""
    if torch.cuda.is_available():
        return [f"cuda:{number}" for number in range(torch.cuda.device_count())]
    return ["cpu"]


def default_workers() -> int:
    """One a device; on processors one a core, eight at most: each holds the encoders."""
    found = devices()
    return len(found) if found != ["cpu"] else min(8, len(os.sched_getaffinity(0)))


def _encode(work: Work, workers: int | None, progress: Progress) -> Made:
    """By so many processes, or in this one if one is enough."""
    count = min(workers or default_workers(), work.entries)
    if count <= 1:
        if not work.entries:
            return Made()
        return fill(work, devices()[0], progress=lambda done: progress(done / work.entries))
    shared = SharedProgress(work.folder, uuid.uuid4().hex)
    threads = max(1, len(os.sched_getaffinity(0)) // count)
    context = multiprocessing.get_context("spawn")
    try:
        with without_main_module(), ProcessPoolExecutor(count, mp_context=context) as pool:
            futures = [pool.submit(_worker, work, shared, number, count, threads) for number in range(count)]
            return _gathered(futures, shared, work, progress)
    except BrokenProcessPool as error:
        raise VdsgenError(
            "a process that encodes ended unexpectedly",
            remedy="memory may have run out: try fewer --workers; what was written stays",
        ) from error
    finally:
        shared.remove()


def _gathered(
    futures: Sequence[Future[Made]], shared: SharedProgress, work: Work, progress: Progress
) -> Made:
    pending = set(futures)
    while pending:
        done, pending = wait(pending, timeout=LOOK_SECONDS)
        progress(min(1.0, shared.done() / work.entries))
        for future in done:
            if (error := future.exception()) is not None:
                for other in pending:
                    other.cancel()
                raise error
    made = Made()
    for part in (future.result() for future in futures):
        made.entries += part.entries
        made.stored_bytes += part.stored_bytes
        made.failed |= part.failed
    return made


def _worker(work: Work, shared: SharedProgress, number: int, count: int, threads: int) -> Made:
    logging.getLogger("vdsgen").setLevel(logging.ERROR)  # the first process has warned
    torch.set_num_threads(threads)
    found = devices()
    return fill(work, found[number % len(found)], number, count, Notes(shared, number))
