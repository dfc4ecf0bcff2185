"""Caches of small clips for tests."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tests.model.data.test_samples import experiment_of
from vdsgen.model.cache.content import Contents
from vdsgen.model.cache.families import encoders_of
from vdsgen.model.cache.fill import Made, fill
from vdsgen.model.cache.state import CacheState, cache_state, folder_of, hashes_of
from vdsgen.model.cache.store import Store, open_store
from vdsgen.model.data.index import scan
from vdsgen.model.sources import open_source
from vdsgen.spec.data import LatentCache
from vdsgen.spec.experiment import Experiment


def cached(clips: Path, folder: Path, *, cache: dict[str, Any] | None = None, **changes: Any) -> Experiment:
    """8 frames of 32 x 32 of these clips, with a cache in `folder`; `cache` are settings of its own."""
    return experiment_of(clips, cache=LatentCache(folder=str(folder), **(cache or {})), **changes)


def state_of(experiment: Experiment) -> tuple[CacheState, Store]:
    index = scan(experiment.data)
    store = open_store(folder_of(experiment.data), make=True)
    contents = Contents(store.folder)
    hashes = hashes_of(index, contents, range(len(index.entries)))
    state = cache_state(index, experiment.data, encoders_of(experiment), hashes)
    contents.save()
    return state, store


def fill_cache(experiment: Experiment) -> Made:
    """Encodes what is missing, in this process."""
    state, store = state_of(experiment)
    return fill(state.missing(store), "cpu")


def cached_source(experiment: Experiment) -> Any:
    """Fills the cache, and reads from it."""
    fill_cache(experiment)
    state, store = state_of(experiment)
    training = experiment.training
    reader = state.reader(store, training.seed, training.diffusion.condition_dropout)
    return open_source(experiment, state.index, "cpu", reader)
