"""Removing what no experiment needs, when somebody asks for it and nobody reads the cache."""

from __future__ import annotations

import time
from collections.abc import Iterable, Set
from dataclasses import dataclass

from vdsgen.errors import VdsgenError
from vdsgen.model.cache.content import Contents
from vdsgen.model.cache.encoders import Tensors
from vdsgen.model.cache.locks import use_lock
from vdsgen.model.cache.shards import MANIFEST_SUFFIX, ShardFile, write_shard
from vdsgen.model.cache.store import DAMAGED_SUFFIX, Store

OLD_SECONDS = 3600.0
"""Files without a manifest are older than this before they are taken for an interrupted writer's."""


@dataclass
class Pruned:
    """What was removed."""

    entries: int = 0
    freed_bytes: int = 0
    leftovers: int = 0
    """Files of interrupted writers, and shards that were damaged."""


def prune(store: Store, contents: Contents, needed: Set[str]) -> Pruned:
    """Removes entries that are not `needed`. A shard of which some are needed is written again without the
    rest.

    Raises VdsgenError while a run reads the cache.
    """
    lock = use_lock(store.folder)
    if not lock.take():
        raise VdsgenError(
            f"{store.folder} is in use by a run or by another `vdsgen cache`; nothing was removed",
            remedy="prune when they have ended",
        )
    try:
        store.refresh()
        pruned = Pruned()
        for name, manifest in list(store.manifests.items()):
            used = [key for key in manifest.checksums if key in needed]
            if len(used) == len(manifest.checksums):
                continue
            if used:
                _write_again(store, contents, name, used)
                pruned.freed_bytes -= store.manifests[_newest(store)].size_bytes
            pruned.entries += len(manifest.checksums) - len(used)
            pruned.freed_bytes += manifest.size_bytes
            _remove(store, name)
        _remove_leftovers(store, pruned)
        contents.save()
        return pruned
    finally:
        lock.release()


def _newest(store: Store) -> str:
    return next(reversed(store.manifests))


def _write_again(store: Store, contents: Contents, name: str, keys: Iterable[str]) -> None:
    manifest = store.manifests[name]
    shard = ShardFile(store.file(name))
    entries: dict[str, Tensors] = {key: shard.read(key, manifest.checksums[key]) for key in keys}
    shard.close()
    made_of = {key: manifest.made_of[key] for key in entries}
    written = write_shard(store.shards, entries, made_of)
    contents.remember(store.file(written.name), written.sha256)
    store.add(written)


def _remove(store: Store, name: str) -> None:
    """The manifest first: a shard without one counts for nothing."""
    (store.shards / (name + MANIFEST_SUFFIX)).unlink(missing_ok=True)
    store.file(name).unlink(missing_ok=True)
    store.forget(name)


def _remove_leftovers(store: Store, pruned: Pruned) -> None:
    """What belongs to no whole shard: at once where it was found damaged, else when nobody can be writing
    it."""
    files = list(store.shards.iterdir())
    damaged = {path.stem for path in files if path.suffix == DAMAGED_SUFFIX}
    for path in files:
        status = path.stat()
        old = time.time() - status.st_mtime > OLD_SECONDS
        if path.stem not in store.manifests and (old or path.stem in damaged):
            pruned.freed_bytes += status.st_size
            pruned.leftovers += 1
            path.unlink()
