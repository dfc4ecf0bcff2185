"""Clips that are kept out of training: which ones, and whether they can be read."""

from __future__ import annotations

import dataclasses
import hashlib
import logging
import os

from vdsgen.errors import VdsgenError
from vdsgen.model.data.buckets import clips_of_sizes
from vdsgen.model.data.clips import ClipReader
from vdsgen.model.data.index import Index, scan
from vdsgen.model.data.video import VideoError, printable
from vdsgen.spec.data import Data
from vdsgen.spec.training import Validation

log = logging.getLogger("vdsgen.data")


def hold_out(index: Index, data: Data, validation: Validation) -> tuple[Index, Index]:
    """(clips to train on, held-out clips to look at) of `index`, the clips of `data.videos`; held-out ones
    from a folder of their own where there is one. At most `validation.clips`, in the order of their hashes.

    Raises VdsgenError where one of the two would be empty.
    """
    if validation.videos is not None:
        found = scan(data.model_copy(update={"videos": validation.videos}))
        return index, _looked_at(found, data, validation)
    assert validation.fraction is not None, "a folder or a fraction, the spec says"
    held = _held_paths(index, validation.fraction)
    training = _only(index, [place for place, entry in enumerate(index.entries) if entry.path not in held])
    for positions, size in zip(clips_of_sizes(training, data), data.sizes, strict=True):
        # Clips that each have a size of their own need not fill all.
        if not positions and (data.bucketing == "every" or not training.entries):
            raise VdsgenError(
                f"training.validation.fraction ({validation.fraction:g}) holds {len(held)} of the "
                f"{len(index.entries)} clips out, and leaves none of {size} to train on",
                remedy="lower it, or give held-out clips a folder of their own: training.validation.videos",
            )
    rest = _only(index, [place for place, entry in enumerate(index.entries) if entry.path in held])
    return training, _looked_at(rest, data, validation)


def as_held_out(data: Data) -> Data:
    """What a held-out clip is looked at as: the middle frames at the first size, cropped at the centre and
    not mirrored. Its window in a cache is then the only one."""
    cache = data.cache and data.cache.model_copy(update={"windows_per_clip": 1})
    return data.model_copy(update={"buckets": (), "random_flip": False, "crop": "center", "cache": cache})


def _held_paths(index: Index, fraction: float) -> frozenset[str]:
    """Those with a hash below `fraction`; where there is none, the one with the lowest."""
    paths = [entry.path for entry in index.entries]
    held = frozenset(path for path in paths if _place_of(path) < fraction)
    return held or frozenset({min(paths, key=_place_of)})


def _place_of(path: str) -> float:
    """In [0, 1), evenly spread over paths, and of this path alone."""
    digest = hashlib.sha256(b"vdsgen held out/" + os.fsencode(path)).digest()
    return int.from_bytes(digest[:8], "big") / 2**64


def _only(index: Index, places: list[int]) -> Index:
    return dataclasses.replace(index, entries=tuple(index.entries[place] for place in places))


def _looked_at(index: Index, data: Data, validation: Validation) -> Index:
    """Long enough and readable: decoded once here, so that no rank meets another set later."""
    usable = [index.entries[place] for place in index.long_enough(data, data.sizes[0])]
    ordered = dataclasses.replace(
        index, entries=tuple(sorted(usable, key=lambda entry: _place_of(entry.path)))
    )
    reader = ClipReader(ordered, data.model_copy(update={"decoded_cache_mib": 0}), 0, 0.0)
    readable: list[int] = []
    for place, entry in enumerate(ordered.entries):
        if len(readable) == validation.clips:
            break
        try:
            reader.middle(place)
        except VideoError as error:
            log.warning("held out, but not used: %s: %s", printable(entry.path), error.reason)
        else:
            readable.append(place)
    if not readable:
        raise VdsgenError(
            f"none of the {len(index.entries)} held-out clips in {printable(index.folder)} can be used for "
            f"validation at {data.sizes[0]} (frames x height x width)",
            remedy="raise training.validation.fraction, or give clips in training.validation.videos",
        )
    return _only(ordered, readable)
