"""Decoding a window of a video at a frame rate, by presentation time."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import numpy.typing as npt

from vdsgen.model.data.picture import Picture, RgbConverter
from vdsgen.model.data.video import VideoError, average_rate, open_video, origin, pixel_aspect_of

Transform = Callable[[Picture], Picture]

_SEEK_BEYOND_SECONDS = Fraction(1, 2)
"""Windows that start earlier are reached by decoding from the first frame."""

_DAMAGE_SHARE = Fraction(1, 8)
"""Damaged packets and frames that a window may lose, as a share of its frames; one is always forgiven."""


def decode_clip(
    path: str | Path,
    start_seconds: Fraction | float,
    frames: int,
    frame_rate: Fraction | float | None = None,
    *,
    transform: Transform | None = None,
) -> npt.NDArray[np.uint8]:
    """`frames` pictures from `start_seconds` (after the first frame) on: uint8 (T, H, W, 3), RGB.

    With a `frame_rate`, the i-th picture is the one presented nearest to start + i / frame_rate, so
    that frames repeat or are left out; a frame that is held long stays until the next is due. Without,
    pictures are consecutive frames of the file.

    Pictures are upright (rotation metadata is applied), their pixels square, transparency lies on
    white. `transform` is applied to each picture at once, so that a window of a large video need not
    fit into memory before it is made small. A damaged frame is replaced by the one before it.

    Raises VideoError where the window reaches beyond the last frame, or too much of it is damaged.
    """

    forgiven = max(1, int(frames * _DAMAGE_SHARE))
    return _window(
        path,
        lambda start: _frames_from(path, start, forgiven),
        Fraction(start_seconds),
        frames,
        frame_rate,
        transform,
    )


class Reel:
    """A whole video in memory, from which windows are cut as `decode_clip` cuts them from the file."""

    def __init__(self, path: str | Path, transform: Transform | None = None) -> None:
        """Decodes everything. Raises VideoError where any of it is damaged."""
        self.path = str(path)
        self._shown = []
        for shown in _frames_from(path, Fraction(0), forgiven=0):
            shown.converted(transform)
            shown.frame = None
            self._shown.append(shown)

    def window(
        self, start_seconds: Fraction | float, frames: int, frame_rate: Fraction | float | None = None
    ) -> npt.NDArray[np.uint8]:
        """uint8 (T, H, W, 3), the very bytes that decode_clip returns."""
        start = Fraction(start_seconds)
        return _window(self.path, lambda _: iter(self._shown), start, frames, frame_rate, None)


@dataclass(slots=True)
class _Shown:
    """A decoded frame and when it is the one to take, seconds after the first frame."""

    frame: Any
    time: Fraction
    """When it is presented."""
    appears: Fraction
    """From here on it is taken: half-way from the frame before, but at most half an average interval
    early. Where the rate is constant, that takes the nearest frame; one that is held long stays until
    the next is due."""
    vanishes: Fraction
    """If it is the last one: up to here it may be taken."""
    clock: _Clock
    """Of the stream that it comes from."""
    picture: Picture | None = None

    def converted(self, transform: Transform | None) -> Picture:
        """Converts once, however often the picture is repeated."""
        if self.picture is None:
            clock = self.clock
            picture = clock.to_rgb(self.frame, size=clock.size, pixel_aspect=clock.pixel_aspect)
            self.picture = transform(picture) if transform else picture
        return self.picture


FramesFrom = Callable[[Fraction], Iterator[_Shown]]
"""From a start to the frames in order, the first of them shown at the start or before."""


class _Clock:
    """What a stream says about time and pictures."""

    def __init__(self, stream: Any) -> None:
        self.base = Fraction(stream.time_base)
        self.first = origin(stream)
        self.interval = 1 / (average_rate(stream) or Fraction(25))
        self.pixel_aspect = pixel_aspect_of(stream)
        self.size: tuple[int, int] | None = None
        """Stored width and height of the first frame seen; all others are scaled to them."""
        self.previous: Fraction | None = None
        self.to_rgb = RgbConverter()

    def shown(self, frame: Any) -> _Shown:
        self.size = self.size or (frame.width, frame.height)
        if frame.pts is not None:
            time = frame.pts * self.base - self.first
        else:
            time = Fraction(0) if self.previous is None else self.previous + self.interval
        gap = self.interval if self.previous is None else max(Fraction(0), time - self.previous)
        appears = time - min(gap, self.interval) / 2
        self.previous = time
        # PyAV before 16 does not tell a frame's duration.
        duration = (getattr(frame, "duration", None) or 0) * self.base
        return _Shown(frame, time, appears, time + max(duration, 2 * self.interval), self)


def _window(
    path: str | Path,
    frames_from: FramesFrom,
    start: Fraction,
    frames: int,
    frame_rate: Fraction | float | None,
    transform: Transform | None,
) -> npt.NDArray[np.uint8]:
    try:
        if frame_rate is None:
            pictures = _consecutive(path, frames_from, start, frames, transform)
        else:
            rate = Fraction(frame_rate).limit_denominator(10_000)
            targets = [start + i / rate for i in range(frames)]
            pictures = _resampled(path, frames_from(start), targets, transform)
    except av.FFmpegError as error:
        raise VideoError(path, f"has frames that cannot be converted ({error})") from error
    return np.stack(pictures)


def _resampled(
    path: str | Path, source: Iterator[_Shown], targets: list[Fraction], transform: Transform | None
) -> list[Picture]:
    pictures: list[Picture] = []
    held: _Shown | None = None
    for shown in source:
        while held and len(pictures) < len(targets) and targets[len(pictures)] < shown.appears:
            pictures.append(held.converted(transform))
        held = shown
        if len(pictures) == len(targets):
            return pictures
    while held and len(pictures) < len(targets) and targets[len(pictures)] <= held.vanishes:
        pictures.append(held.converted(transform))
    if len(pictures) < len(targets):
        end = float(held.vanishes) if held else 0.0
        raise VideoError(path, f"ends at {end:.2f} s, the clip reaches to {float(targets[-1]):.2f} s")
    return pictures


def _consecutive(
    path: str | Path, frames_from: FramesFrom, start: Fraction, frames: int, transform: Transform | None
) -> list[Picture]:
    pictures: list[Picture] = []
    held: _Shown | None = None
    for shown in frames_from(start):
        if held and shown.appears > start:
            pictures.append(held.converted(transform))
            if len(pictures) == frames:
                return pictures
        held = shown
    if held and held.vanishes >= start:
        pictures.append(held.converted(transform))
        if len(pictures) < frames:
            # Where frames are not evenly spaced, the last window starts earlier than the average says.
            earlier = max(Fraction(0), start - 4 * frames * held.clock.interval)
            last = deque(frames_from(earlier), maxlen=frames)
            pictures = [shown.converted(transform) for shown in last]
    if len(pictures) < frames:
        raise VideoError(path, f"has {len(pictures)} frames from {float(start):.2f} s on, not {frames}")
    return pictures


def _frames_from(path: str | Path, start: Fraction, forgiven: int) -> Iterator[_Shown]:
    """Undamaged frames in order, beginning at or before the one that is shown at `start`.

    Raises VideoError after more than `forgiven` damaged packets and frames.
    """
    for seeking in (True, False) if start > _SEEK_BEYOND_SECONDS else (False,):
        with open_video(path) as (container, stream):
            clock = _Clock(stream)
            if seeking and not _seek(container, stream, clock.first + start):
                continue
            decoded = _undamaged(path, container, stream, clock, forgiven)
            head = next(decoded, None)
            if seeking and (head is None or head.time > start):
                continue  # the file's index is wrong: decode from the first frame
            if head is not None:
                yield head
                yield from decoded
            return


def _seek(container: Any, stream: Any, time: Fraction) -> bool:
    """To the keyframe at or before `time`. False where the container cannot."""
    if container.format.name == "gif":  # its frames build on all earlier ones
        return False
    try:
        container.seek(int(time / Fraction(stream.time_base)), stream=stream)
    except av.FFmpegError:
        return False
    return True


def _undamaged(
    path: str | Path, container: Any, stream: Any, clock: _Clock, forgiven: int
) -> Iterator[_Shown]:
    """Leaves damaged packets and frames out."""
    damaged = 0
    for packet in container.demux(stream):
        try:
            decoded = packet.decode()
        except av.error.EOFError:
            return
        except av.error.InvalidDataError:
            decoded = []
            damaged += 1
        for frame in decoded:
            if frame.is_corrupt:
                damaged += 1
            else:
                yield clock.shown(frame)
        if damaged > forgiven:
            raise VideoError(path, f"has {damaged} damaged frames or more in one place")
