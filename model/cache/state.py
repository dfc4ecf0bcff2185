"""What of an experiment's cache is there, and what is missing: the story from a folder of clips to work."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from vdsgen.errors import VdsgenError
from vdsgen.model.cache.content import Contents
from vdsgen.model.cache.encoders import MakeEncoders
from vdsgen.model.cache.fill import Work
from vdsgen.model.cache.needs import ClipNeed, Keys, TextNeed, clip_needs, text_needs
from vdsgen.model.cache.reader import CacheReader
from vdsgen.model.cache.store import Located, Store
from vdsgen.model.data.index import Index
from vdsgen.spec.data import Data

MIB = 2**20


@dataclass(frozen=True)
class CacheState:
    """An experiment's needs beside what a cache holds."""

    index: Index
    data: Data
    keys: Keys
    contents: Sequence[str]
    clips: Sequence[ClipNeed]
    texts: Sequence[TextNeed]
    make_encoders: MakeEncoders

    @property
    def needed(self) -> list[str]:
        return [*(need.key for need in self.clips), *(need.key for need in self.texts)]

    def missing(self, store: Store) -> Work:
        """What is to be encoded."""
        cache = self.data.cache
        assert cache is not None
        return Work(
            folder=store.folder,
            clips=[need for need in self.clips if need.key not in store],
            texts=[need for need in self.texts if need.key not in store],
            make_encoders=self.make_encoders,
            dtype=cache.dtype,
            shard_bytes=cache.shard_mib * MIB,
        )

    def reader(self, store: Store, seed: int, condition_dropout: float) -> CacheReader:
        """What training reads. Raises VdsgenError where a caption is missing, which no other clip stands
        for."""
        for need in self.texts:
            if need.key not in store:
                raise VdsgenError(f"{store.folder} lacks the embedding of the caption {need.caption[:60]!r}")
        entries: dict[str, Located] = {key: store.located(key) for key in self.needed if key in store}
        return CacheReader(self.index, self.data, seed, condition_dropout, self.keys, self.contents, entries)


def missing_of(states: Sequence[CacheState], store: Store) -> Work:
    """What is to be encoded for all of `states`, of one experiment: what several need, once."""
    works = [state.missing(store) for state in states]
    clips = {need.key: need for work in works for need in work.clips}
    texts = {need.key: need for work in works for need in work.texts}
    return replace(works[0], clips=list(clips.values()), texts=list(texts.values()))


def cache_state(index: Index, data: Data, make_encoders: MakeEncoders, hashes: Sequence[str]) -> CacheState:
    """`hashes`: of each clip's file; empty where it cannot be read. Raises VdsgenError where an encoder's
    folder cannot be read."""
    encoders = make_encoders("cpu")
    try:
        keys = Keys(data, encoders.fingerprint("clip"), encoders.fingerprint("text"))
    except OSError as error:
        raise VdsgenError(f"an encoder's file {error.filename} cannot be read: {error.strerror}") from error
    return CacheState(
        index=index,
        data=data,
        keys=keys,
        contents=hashes,
        clips=clip_needs(index, data, keys, hashes),
        texts=text_needs(index, keys),
        make_encoders=make_encoders,
    )


def hashes_of(index: Index, contents: Contents, positions: Sequence[int]) -> list[str]:
    """The hash of each of these clips' files; empty where it cannot be read."""
    found = contents.of_all(index.file(position) for position in positions)
    return ["" if isinstance(digest, OSError) else digest for digest in found]


def folder_of(data: Data) -> Path:
    assert data.cache is not None
    return Path(data.cache.folder)
