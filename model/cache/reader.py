"""Samples' tensors from the cache, in the order of the run."""

from __future__ import annotations

import functools
import threading
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from itertools import islice
from pathlib import Path

import torch

from vdsgen.errors import VdsgenError
from vdsgen.model.cache.encoders import Tensors
from vdsgen.model.cache.locks import Lock, use_lock
from vdsgen.model.cache.needs import Keys, window_starts
from vdsgen.model.cache.shards import DamageError, ShardFile
from vdsgen.model.cache.store import SUSPECT_SUFFIX, Located
from vdsgen.model.data.buckets import clips_of_sizes
from vdsgen.model.data.clips import MOST_ATTEMPTS
from vdsgen.model.data.index import Index, Skipped
from vdsgen.model.data.order import Draw, candidates, generator_for
from vdsgen.model.data.video import printable
from vdsgen.spec.data import ClipSize, Data

OPEN_SHARDS = 32
CAPTIONS_IN_MEMORY = 64


@dataclass(frozen=True, slots=True)
class CachedClip:
    """What the cache has of one sample."""

    clip: Tensors
    """What `Encoders.encode_clip` gave; floating tensors in the stored element type."""
    text: Tensors
    """What `Encoders.encode_text` gave of its caption, or of the empty one where `dropped`."""
    position: int
    """Of the clip in the index."""
    dropped: bool
    """The sample is to be trained without its condition."""
    skipped: tuple[Skipped, ...] = ()
    """Clips that should have come first and are not in the cache, or damaged there."""


@dataclass
class CacheReader:
    """A pure function of the sample's place in the run. Loader workers hold one each.

    Of each sample's own generator come the same numbers as without a cache (`ClipReader`): the window, the
    crop's place, which is always the centre here, the flip, and the dropping of the condition.
    """

    index: Index
    data: Data
    seed: int
    condition_dropout: float
    keys: Keys
    contents: Sequence[str]
    """Of each clip's file: its hash, empty where it could not be read."""
    entries: Mapping[str, Located]
    """Where each entry lies that this experiment needs."""
    _shards: OrderedDict[str, ShardFile] = field(default_factory=OrderedDict, repr=False)
    _captions: OrderedDict[str, Tensors] = field(default_factory=OrderedDict, repr=False)
    _turn: threading.Lock = field(default_factory=threading.Lock, repr=False)
    """For what is kept between samples: loaders may be threads."""
    _in_use: Lock | None = field(default=None, repr=False)
    """Held as long as somebody may read, in the process that made this reader."""

    def __post_init__(self) -> None:
        assert self.data.cache is not None
        self._in_use = use_lock(Path(self.data.cache.folder))
        self._in_use.take(shared=True, wait=True)

    def close(self) -> None:
        """Lets the cache be pruned."""
        if self._in_use is not None:
            self._in_use.release()

    def read(self, draw: Draw) -> CachedClip:
        """A sample's tensors. A clip that is not there is replaced by the next of its epoch.

        Raises VdsgenError where none of MOST_ATTEMPTS clips is there.
        """
        draws = torch.rand(4, generator=generator_for(self.seed, "clip", draw.sample), dtype=torch.float64)
        window, _, flip, drop = draws.tolist()
        dropped = drop < self.condition_dropout
        usable = self._clips[draw.size]
        skipped: list[Skipped] = []
        for place in islice(candidates(self.seed, draw.turn, len(usable), draw.size), MOST_ATTEMPTS):
            position = usable[place]
            try:
                clip = self.clip(position, draw.size, window, flipped=flip < 0.5)
                text = self.text("" if dropped else self.index.entries[position].caption)
            except DamageError as error:
                skipped.append(Skipped(self.index.entries[position].path, f"in the cache, {error.message}"))
                continue
            except KeyError:
                skipped.append(Skipped(self.index.entries[position].path, "is not in the cache"))
                continue
            return CachedClip(clip, text, position, dropped, tuple(skipped))
        last = skipped[-1]
        raise VdsgenError(
            f"none of {len(skipped)} clips in a row is in the cache; the last was "
            f"{printable(last.path)}, which {last.reason}",
            remedy="`vdsgen cache` checks the cache, and makes again what is missing",
        )

    @functools.cached_property
    def sizes(self) -> tuple[ClipSize, ...]:
        return self.data.sizes

    @functools.cached_property
    def _clips(self) -> tuple[Sequence[int], ...]:
        return clips_of_sizes(self.index, self.data)

    def clip(self, position: int, size: int, window: float, *, flipped: bool) -> Tensors:
        """`window` in [0, 1) chooses one of the clip's. Raises KeyError, DamageError."""
        of = self.data.sizes[size]
        starts = window_starts(self.index.entries[position], of, self.data)
        start: Fraction = starts[int(window * len(starts))]
        flipped = flipped and self.data.random_flip
        return self._entry(self.keys.clip(self.contents[position], of, start, flipped=flipped))

    def middle(self, position: int) -> Tensors:
        """Of a held-out clip (`as_held_out`), as `ClipReader.middle` has its pixels. Raises VdsgenError where
        it is not in the cache."""
        try:
            return self.clip(position, 0, 0.5, flipped=False)
        except KeyError:
            path = printable(self.index.entries[position].path)
            raise VdsgenError(
                f"the held-out clip {path} is not in the cache",
                remedy="it could not be decoded; take it out of the held-out clips",
            ) from None

    def text(self, caption: str) -> Tensors:
        """Empty where captions are not embedded. Raises KeyError, DamageError."""
        if not self.keys.text_fingerprint:
            return {}
        with self._turn:
            known = self._captions.get(caption)
        if known is None:
            known = self._entry(self.keys.text(caption))
        with self._turn:
            self._captions[caption] = known
            self._captions.move_to_end(caption)
            if len(self._captions) > CAPTIONS_IN_MEMORY:
                self._captions.popitem(last=False)
        return known

    def _entry(self, key: str) -> Tensors:
        place = self.entries[key]
        try:
            return self._shard(place.shard).read(key, place.crc)
        except DamageError as error:
            # The next start looks at all of the shard's bytes.
            error.path.with_suffix(SUSPECT_SUFFIX).touch()
            raise

    def _shard(self, name: str) -> ShardFile:
        with self._turn:
            shard = self._shards.get(name)
            if shard is None:
                shard = self._shards[name] = ShardFile(self._path(name))
                if len(self._shards) > OPEN_SHARDS:
                    self._shards.popitem(last=False)  # closed when the last thread has read from it
            self._shards.move_to_end(name)
            return shard

    def _path(self, shard: str) -> Path:
        assert self.data.cache is not None
        return Path(self.data.cache.folder) / "shards" / f"{shard}.safetensors"

    def __getstate__(self) -> dict[str, object]:
        """Open files stay where they are."""
        state = dict(self.__dict__)
        del state["_turn"]
        return state | {"_shards": OrderedDict(), "_captions": OrderedDict(), "_in_use": None}

    def __setstate__(self, state: dict[str, object]) -> None:
        self.__dict__.update(state, _turn=threading.Lock())
