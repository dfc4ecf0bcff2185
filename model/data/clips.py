"""From a sample's global index to the pixels of its clip."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from dataclasses import dataclass, field
from fractions import Fraction
from itertools import islice

import numpy as np
import numpy.typing as npt
import torch

from vdsgen.errors import VdsgenError
from vdsgen.model.data.decode import Reel, decode_clip
from vdsgen.model.data.index import Index, Skipped
from vdsgen.model.data.order import candidates, generator_for
from vdsgen.model.data.picture import fit
from vdsgen.model.data.video import VideoError, printable
from vdsgen.spec.experiment import Data

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
    """A pure function of the sample's index, as long as the files stay as they are.

    Of each sample's own generator come, always in this order: the window's start, the crop's place,
    the flip, and the dropping of the condition.
    """

    index: Index
    data: Data
    seed: int
    condition_dropout: float
    _reels: dict[int, Reel | None] = field(default_factory=dict, repr=False, compare=False)
    """Videos that are kept decoded; None for those that cannot be."""

    def read(self, sample: int) -> Clip:
        """The clip of global sample `sample`. One that cannot be read is replaced by the next of its epoch.

        Raises VdsgenError where none of MOST_ATTEMPTS clips can be read.
        """
        draws = torch.rand(4, generator=generator_for(self.seed, "clip", sample), dtype=torch.float64)
        window, crop, flip, drop = draws.tolist()
        skipped: list[Skipped] = []
        for position in self._candidates(sample):
            try:
                video = self._decode(position, window, crop, flip < 0.5)
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

    def _candidates(self, sample: int) -> Iterator[int]:
        return islice(candidates(self.seed, sample, len(self.index.entries)), MOST_ATTEMPTS)

    def _decode(self, position: int, window: float, crop: float, flip: bool) -> npt.NDArray[np.uint8]:
        """uint8 (T, H, W, 3)"""
        entry, data = self.index.entries[position], self.data
        start_frame = min(entry.last_start, int(window * (entry.last_start + 1)))
        start = Fraction(start_frame) / entry.info.frame_rate
        reel = self._reel(position) if self._keeps_all else None
        if reel is not None:
            video = reel.window(start, data.frames, data.frame_rate)
        else:
            offset = crop if data.crop == "random" else 0.5
            video = decode_clip(
                self.index.file(position),
                start,
                data.frames,
                data.frame_rate,
                transform=lambda picture: fit(picture, data.height, data.width, offset=offset),
            )
        return video[:, :, ::-1] if flip and data.random_flip else video

    def _reel(self, position: int) -> Reel | None:
        """The whole video, decoded at its first use; None where any of it is damaged."""
        if position not in self._reels:
            data = self.data
            try:
                self._reels[position] = Reel(
                    self.index.file(position), lambda picture: fit(picture, data.height, data.width)
                )
            except VideoError:
                self._reels[position] = None
        return self._reels[position]

    @functools.cached_property
    def _keeps_all(self) -> bool:
        data = self.data
        pixels = sum(entry.info.frames for entry in self.index.entries) * data.height * data.width
        return data.crop == "center" and 3 * pixels <= data.decoded_cache_mib * 2**20
