"""From a sample's place in the run to the pixels of its clip."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from itertools import islice

import numpy as np
import numpy.typing as npt
import torch

from vdsgen.errors import VdsgenError
from vdsgen.model.data.buckets import clips_of_sizes
from vdsgen.model.data.decode import Reel, decode_clip
from vdsgen.model.data.index import Index, Skipped, last_start
from vdsgen.model.data.order import Draw, candidates, generator_for
from vdsgen.model.data.picture import fit
from vdsgen.model.data.video import VideoError, printable
from vdsgen.spec.data import ClipSize, Data

MOST_ATTEMPTS = 32
"""Clips that are tried for one sample. So many failures in a row mean that the folder has gone."""


@dataclass(frozen=True, slots=True)
class Clip:
    """One sample's pixels, and where they come from."""

    video: torch.Tensor
    """uint8 (3, T, H, W), RGB"""
    position: int
    """Of the clip in the index."""
    dropped: bool
    """The sample is to be trained without its condition."""
    skipped: tuple[Skipped, ...] = ()
    """Clips that should have come first and could not be read."""


@dataclass(frozen=True)
class ClipReader:
    """A pure function of the sample's place in the run, as long as the files stay as they are.

    Of each sample's own generator come, always in this order: the window's start, the crop's place,
    the flip, and the dropping of the condition.
    """

    index: Index
    data: Data
    seed: int
    condition_dropout: float
    _reels: dict[tuple[int, int, int], Reel | None] = field(default_factory=dict, repr=False, compare=False)
    """Videos that are kept decoded, by position, height and width; None for those that cannot be."""

    def read(self, draw: Draw) -> Clip:
        """The clip of a sample. One that cannot be read is replaced by the next of its epoch.

        Raises VdsgenError where none of MOST_ATTEMPTS clips can be read.
        """
        draws = torch.rand(4, generator=generator_for(self.seed, "clip", draw.sample), dtype=torch.float64)
        window, crop, flip, drop = draws.tolist()
        size = self.sizes[draw.size]
        skipped: list[Skipped] = []
        for position in self._candidates(draw):
            try:
                video = self._decode(position, size, window, crop, flip < 0.5)
            except VideoError as error:
                skipped.append(Skipped(self.index.entries[position].path, error.reason))
                continue
            pixels = torch.from_numpy(np.ascontiguousarray(video.transpose(3, 0, 1, 2)))
            return Clip(pixels, position, drop < self.condition_dropout, tuple(skipped))
        last = skipped[-1]
        raise VdsgenError(
            f"none of {len(skipped)} clips in a row in {printable(self.index.folder)} could be read; "
            f"the last was {printable(last.path)}: {last.reason}",
            remedy="check that the folder of clips is still there and readable",
        )

    def middle(self, position: int) -> torch.Tensor:
        """uint8 (3, T, H, W): a clip's middle frames, cropped at the centre and never mirrored, of the first
        size of `Data.sizes`. Raises VideoError where it cannot be read."""
        video = self._decode(position, self.sizes[0], window=0.5, crop=0.5, flip=False)
        return torch.from_numpy(np.ascontiguousarray(video.transpose(3, 0, 1, 2)))

    @functools.cached_property
    def sizes(self) -> tuple[ClipSize, ...]:
        return self.data.sizes

    @functools.cached_property
    def _clips(self) -> tuple[Sequence[int], ...]:
        return clips_of_sizes(self.index, self.data)

    def _candidates(self, draw: Draw) -> Iterator[int]:
        usable = self._clips[draw.size]
        places = candidates(self.seed, draw.turn, len(usable), draw.size)
        return (usable[place] for place in islice(places, MOST_ATTEMPTS))

    def _decode(
        self, position: int, size: ClipSize, window: float, crop: float, flip: bool
    ) -> npt.NDArray[np.uint8]:
        """uint8 (T, H, W, 3)"""
        entry, data = self.index.entries[position], self.data
        last = last_start(entry.info, size.frames, data.frame_rate)
        start = Fraction(min(last, int(window * (last + 1)))) / entry.info.frame_rate
        reel = self._reel(position, size) if self._keeps_all else None
        if reel is not None:
            video = reel.window(start, size.frames, data.frame_rate)
        else:
            offset = crop if data.crop == "random" else 0.5
            video = decode_clip(
                self.index.file(position),
                start,
                size.frames,
                data.frame_rate,
                transform=lambda picture: fit(picture, size.height, size.width, offset=offset),
            )
        return video[:, :, ::-1] if flip and data.random_flip else video

    def _reel(self, position: int, size: ClipSize) -> Reel | None:
        """The whole video, decoded at its first use; None where any of it is damaged."""
        key = (position, size.height, size.width)
        if key not in self._reels:
            try:
                self._reels[key] = Reel(
                    self.index.file(position), lambda picture: fit(picture, size.height, size.width)
                )
            except VideoError:
                self._reels[key] = None
        return self._reels[key]

    @functools.cached_property
    def _keeps_all(self) -> bool:
        data = self.data
        pictures = {(size.height, size.width) for size in self.sizes}
        frames = sum(entry.info.frames for entry in self.index.entries)
        pixels = frames * sum(height * width for height, width in pictures)
        return data.crop == "center" and 3 * pixels <= data.decoded_cache_mib * 2**20
