"""What an experiment needs of the cache: an entry for each window of each clip, and one for each caption.

An entry's key is the hash of everything that its tensors follow from: the file's content (not its name), the
window, size, frame rate and crop, how files are decoded, the encoder, what is stored in which element type.
Whatever changes gives other keys, and the rest stays.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from vdsgen.model.cache.store import FORMAT
from vdsgen.model.data.buckets import clips_of_sizes
from vdsgen.model.data.index import Entry, Index, last_start
from vdsgen.spec.data import ClipSize, Data

DECODING = 1
"""Counts up whenever decoding, cropping or resizing gives other pixels."""


@dataclass(frozen=True, slots=True)
class ClipNeed:
    """One window of a clip."""

    key: str
    content: str
    """Hash of the file."""
    file: str
    start: Fraction
    """Seconds from the first frame."""
    size: ClipSize
    frame_rate: float | None
    flipped: bool


@dataclass(frozen=True, slots=True)
class TextNeed:
    """One caption."""

    key: str
    caption: str


@dataclass(frozen=True)
class Keys:
    """Names entries of one experiment."""

    data: Data
    clip_fingerprint: str
    text_fingerprint: str
    """Empty: captions are not embedded."""

    def clip(self, content: str, size: ClipSize, start: Fraction, *, flipped: bool) -> str:
        cache = self.data.cache
        assert cache is not None
        return key_of(
            kind="clip",
            decoding=DECODING,
            content=content,
            size=[size.frames, size.height, size.width],
            start=str(start),
            frame_rate=self.data.frame_rate,
            flipped=flipped,
            encoder=self.clip_fingerprint,
            dtype=cache.dtype,
        )

    def text(self, caption: str) -> str:
        return key_of(kind="text", caption=caption, encoder=self.text_fingerprint)


def key_of(**facts: Any) -> str:
    """32 hexadecimal digits."""
    text = json.dumps({"format": FORMAT, **facts}, sort_keys=True)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:32]


def window_starts(entry: Entry, size: ClipSize, data: Data) -> tuple[Fraction, ...]:
    """Where the windows of a clip at a size start, seconds: evenly spread, fewer where there are no more."""
    assert data.cache is not None
    last, windows = last_start(entry.info, size.frames, data.frame_rate), data.cache.windows_per_clip
    if windows == 1:
        frames = [(last + 1) // 2]
    else:
        frames = sorted(
            {(2 * number * last + windows - 1) // (2 * (windows - 1)) for number in range(windows)}
        )
    return tuple(Fraction(frame) / entry.info.frame_rate for frame in frames)


def flips(data: Data) -> tuple[bool, ...]:
    """Mirrored latents are not the latents of mirrored pixels: both are kept."""
    return (False, True) if data.random_flip else (False,)


def clip_needs(index: Index, data: Data, keys: Keys, contents: Sequence[str]) -> list[ClipNeed]:
    """Of clips that are alike in content, one. `contents`: of each clip; empty where it could not be read."""
    needs: dict[str, ClipNeed] = {}
    for size, positions in zip(data.sizes, clips_of_sizes(index, data), strict=True):
        for position in positions:
            content = contents[position]
            if not content:
                continue
            for start in window_starts(index.entries[position], size, data):
                for flipped in flips(data):
                    key = keys.clip(content, size, start, flipped=flipped)
                    file = str(index.file(position))
                    need = ClipNeed(key, content, file, start, size, data.frame_rate, flipped)
                    needs.setdefault(key, need)
    return list(needs.values())


def text_needs(index: Index, keys: Keys) -> list[TextNeed]:
    """Each distinct caption, and the empty one."""
    if not keys.text_fingerprint:
        return []
    captions = sorted({"", *(entry.caption for entry in index.entries)})
    return [TextNeed(keys.text(caption), caption) for caption in captions]
