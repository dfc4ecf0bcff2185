"""Before training: what the cache lacks is encoded, by all ranks together."""

from __future__ import annotations

import gc
import time
import uuid
from collections.abc import Sequence, Set
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from deepspeed import comm as dist
from deepspeed.accelerator import get_accelerator

from vdsgen.errors import VdsgenError
from vdsgen.model.agreement import everybodys
from vdsgen.model.cache.content import Contents
from vdsgen.model.cache.families import encoders_of
from vdsgen.model.cache.fill import Made, Work, fill
from vdsgen.model.cache.progress import Notes, SharedProgress, time_left
from vdsgen.model.cache.reader import CacheReader
from vdsgen.model.cache.state import CacheState, cache_state, folder_of, hashes_of, missing_of
from vdsgen.model.cache.store import Store, open_store
from vdsgen.model.console import is_first_rank, say_first
from vdsgen.model.data.held_out import as_held_out
from vdsgen.model.data.index import NAMED_AT_MOST, Index
from vdsgen.model.data.video import printable
from vdsgen.spec.data import Data
from vdsgen.spec.experiment import Experiment

SECONDS_BETWEEN_LINES = 10.0

Answer = TypeVar("Answer")


@dataclass(frozen=True, slots=True)
class Cached:
    """What a run reads in the place of videos."""

    training: CacheReader
    held_out: CacheReader | None
    """Of the clips that are held out; None where there are none."""


def fill_together(experiment: Experiment, index: Index, held_out: Index | None = None) -> Cached | None:
    """Collective. None: the experiment has no cache. Returns when everything that can be encoded is in the
    cache, whoever encoded it. Raises VdsgenError on every rank where one has it."""
    if experiment.data.cache is None:
        return None
    store = _opened(experiment)
    contents = Contents(store.folder)
    states = [_state(experiment, index, experiment.data, contents)]
    if held_out is not None:
        states.append(_state(experiment, held_out, as_held_out(experiment.data), contents))
    needed = {key for state in states for key in state.needed}
    damaged = _verified(needed, store, contents)
    work = missing_of(states, store)
    if work.entries:
        again = f", {damaged} damaged files' among them" if damaged else ""
        say_first(
            f"Encoding {len(work.clips)} windows of clips and {len(work.texts)} captions into {store.folder}"
            f" ({len(needed) - work.entries} of {len(needed)} are there{again})."
        )
        _report(everybodys(lambda: _filled(work)))
    store.refresh()
    training = experiment.training
    readers = [state.reader(store, training.seed, training.diffusion.condition_dropout) for state in states]
    return Cached(readers[0], readers[1] if len(readers) > 1 else None)


def _opened(experiment: Experiment) -> Store:
    """The folder, made by rank 0. Raises VdsgenError where another rank does not see it."""
    folder = folder_of(experiment.data)
    first = everybodys(lambda: open_store(folder, make=True).folder if is_first_rank() else None)[0]
    assert first is not None

    def see() -> Store:
        if not (folder / "cache.json").is_file():
            raise VdsgenError(
                f"data.cache.folder: {folder} is there for rank 0 and not for rank {dist.get_rank()}",
                remedy="name a folder that all hosts share, by the same path",
            )
        return open_store(folder, make=True)

    everybodys(lambda: see().folder)
    return see()


def _state(experiment: Experiment, index: Index, data: Data, contents: Contents) -> CacheState:
    """Each rank hashes its share of the clips."""
    world, rank = dist.get_world_size(), dist.get_rank()
    clips = range(len(index.entries))
    parts = everybodys(lambda: hashes_of(index, contents, clips[rank::world]))
    hashes = [""] * len(clips)
    for number, part in enumerate(parts):
        hashes[number::world] = part
    # Rank 0 hashes encoders' folders, and the others find that remembered.
    make = encoders_of(experiment)
    for turn in (True, False):
        if is_first_rank() is turn:
            state = cache_state(index, data, make, hashes)
        dist.barrier()
    contents.save()
    return state


def _verified(needed: Set[str], store: Store, contents: Contents) -> int:
    """Retires damaged shards, and returns how many there were. Each rank reads its share of those that
    have not been read since they were written."""
    world, rank = dist.get_world_size(), dist.get_rank()
    names = sorted({store.located(key).shard for key in needed if key in store})
    wrong = dict(store.damaged)
    for part in everybodys(lambda: store.verify(names[rank::world], contents)):
        wrong |= part
    contents.save()
    for name, reason in sorted(wrong.items()):
        say_first(f"warning: {store.file(name)} {reason}: what was in it is encoded again")
    dist.barrier()
    if is_first_rank():
        store.retire(wrong)
    for name in wrong:
        store.forget(name)
    dist.barrier()
    return len(wrong)


def _filled(work: Work) -> Made:
    """This rank's part."""
    job: list[Any] = [uuid.uuid4().hex]
    device = get_accelerator().current_device_name()
    torch.distributed.broadcast_object_list(job, src=0, device=torch.device(device))
    shared = SharedProgress(work.folder, job[0])
    note, began, said = Notes(shared, dist.get_rank()), time.monotonic(), time.monotonic()

    def progress(done: int) -> None:
        nonlocal said
        note(done)
        if is_first_rank() and time.monotonic() - said > SECONDS_BETWEEN_LINES:
            said = time.monotonic()
            say_first(f"Encoded {time_left(said - began, max(done, shared.done()), work.entries)}.")

    try:
        return fill(work, device, dist.get_rank(), dist.get_world_size(), progress)
    finally:
        gc.collect()
        get_accelerator().empty_cache()
        if is_first_rank():
            shared.remove()


def _report(made: Sequence[Made]) -> None:
    stored = sum(part.stored_bytes for part in made)
    entries = sum(part.entries for part in made)
    say_first(
        f"Encoded {entries}, {stored / 2**20:.1f} MiB, by {sum(1 for part in made if part.entries)} ranks."
    )
    failed = {file: reason for part in made for file, reason in part.failed.items()}
    for file, reason in sorted(failed.items())[:NAMED_AT_MOST]:
        say_first(f"warning: left out {printable(file)}: {reason}")
    if len(failed) > NAMED_AT_MOST:
        say_first(f"warning: left out {len(failed) - NAMED_AT_MOST} more")
