"""Opening a video file and telling what it holds, without decoding more than one frame."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import av

from vdsgen.errors import VdsgenError
from vdsgen.model.data.picture import square_pixels
from vdsgen.model.data.reading import READ_AHEAD_BYTES, MeasuredFile

SUFFIXES = frozenset({".mp4", ".webm", ".mkv", ".mov", ".avi", ".gif"})

MAX_PIXELS = 2**27
"""Frames above this (an 8K frame is a quarter of it) are taken for a decompression bomb."""

# Playlists could name other files and hosts; containers cannot. FFmpeg opens nothing itself: it reads ours.
_CONTAINERS = "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,gif,mpegts,mpeg,flv,asf,ogg"
_OPTIONS = {"protocol_whitelist": "file", "format_whitelist": _CONTAINERS}


class VideoError(VdsgenError):
    """A file that cannot be used as a video. `reason` is the message without the file's name."""

    def __init__(self, path: str | Path, reason: str) -> None:
        super().__init__(f"{printable(path)}: {reason}")
        self.path = str(path)
        self.reason = reason

    def __reduce__(self) -> tuple[type[VideoError], tuple[str, str]]:
        return type(self), (self.path, self.reason)


@dataclass(frozen=True, slots=True)
class VideoInfo:
    """What a file holds. Sizes are of the upright picture with square pixels."""

    frames: int
    """As the container says; estimated from duration and rate where it does not count them."""
    frame_rate: Fraction
    """Average, frames a second."""
    width: int
    height: int


def printable(path: str | Path) -> str:
    """A path that can be written to any log: bytes that are not text are escaped."""
    text = str(path).encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    return "".join(character if character.isprintable() else repr(character)[1:-1] for character in text)


@contextmanager
def open_video(path: str | Path) -> Iterator[tuple[Any, Any]]:
    """The container and its best video stream, to be decoded by one thread.

    Raises VideoError for anything that FFmpeg refuses, inside the block too.
    """
    file = Path(path)
    if not file.is_file():
        raise VideoError(path, "is not a file" if file.exists() else "does not exist")
    if not file.stat().st_size:
        raise VideoError(path, "is empty")
    try:
        # 'replace': titles in odd encodings are no reason to lose a clip.
        with (
            MeasuredFile(file) as source,
            av.open(
                source, metadata_errors="replace", options=dict(_OPTIONS), buffer_size=READ_AHEAD_BYTES
            ) as container,
        ):
            stream = container.streams.best("video")
            if stream is None:
                raise VideoError(path, "has no video stream")
            # Loader workers are the parallelism; decoder threads would only oversubscribe the cores.
            stream.codec_context.thread_count = 1
            yield container, stream
    except (av.FFmpegError, OSError) as error:
        raise VideoError(path, f"cannot be decoded ({_words(error)})") from error


def origin(stream: Any) -> Fraction:
    """Presentation time of the first frame, seconds."""
    return Fraction(0) if stream.start_time is None else stream.start_time * Fraction(stream.time_base)


def average_rate(stream: Any) -> Fraction | None:
    """Frames a second, or None where the container does not know."""
    for rate in (stream.average_rate, stream.guessed_rate):
        if rate is not None and 0 < rate <= 1000:
            return Fraction(rate)
    return None


def pixel_aspect_of(stream: Any) -> Fraction:
    """Width of a pixel over its height; 1 where unknown or absurd."""
    aspect = stream.sample_aspect_ratio
    return Fraction(aspect) if aspect and Fraction(1, 4) <= aspect <= 4 else Fraction(1)


def probe(path: str | Path) -> VideoInfo:
    """Frames, rate and size of a video. Decodes its first frame, so that what passes can be decoded.

    Raises VideoError naming the file and what is wrong with it.
    """
    with open_video(path) as (container, stream):
        first = _first_frame(container, stream, path)
        width, height = square_pixels(first.width, first.height, pixel_aspect_of(stream))
        if width * height > MAX_PIXELS:
            raise VideoError(path, f"has frames of {width} x {height}, more than {MAX_PIXELS} pixels")
        if abs(first.rotation) % 180 == 90:
            width, height = height, width
        rate = average_rate(stream)
        seconds = _seconds_to_the_end(container, stream)
        if rate is None or seconds is None:
            frames, rate = _count_frames(container, stream, path)
        else:
            _check_whole(stream, seconds, path)
            measured = max(1, round(seconds * rate))
            frames = min(stream.frames, measured + 1) if stream.frames else measured
    return VideoInfo(frames=frames, frame_rate=rate, width=width, height=height)


def _words(error: Exception) -> str:
    """An error's own words without the path, which the message gives already."""
    return getattr(error, "strerror", None) or type(error).__name__


def _first_frame(container: Any, stream: Any, path: str | Path) -> Any:
    for frame in container.decode(stream):
        return frame
    raise VideoError(path, "has no frame")


def _seconds_to_the_end(container: Any, stream: Any) -> Fraction | None:
    """Where the last packet that is really in the file ends, seconds from the first frame.

    Headers keep promising the whole length of a file that was cut off, so look at its end. None where
    the container cannot seek there.
    """
    if container.format.name == "gif" or (stream.duration is None and container.duration is None):
        return None
    base = Fraction(stream.time_base)
    start = stream.start_time or 0
    length = stream.duration
    if length is None:
        length = math.ceil(Fraction(container.duration, av.time_base) / base)
    try:
        container.seek(start + length, stream=stream)
        end = None
        for packet in container.demux(stream):
            if packet.size and not packet.is_corrupt and packet.pts is not None:
                end = max(end or 0, packet.pts - start + (packet.duration or 0))
    except av.FFmpegError:
        return Fraction(0)
    return Fraction(0) if end is None else end * base


def _check_whole(stream: Any, seconds: Fraction, path: str | Path) -> None:
    """Refuse a file whose own video stream is shorter than its header says."""
    if stream.duration is None:
        if not seconds:
            raise VideoError(path, "is cut off: it cannot be read to its end")
        return
    declared = stream.duration * Fraction(stream.time_base)
    if seconds < declared * Fraction(9, 10):
        raise VideoError(
            path,
            f"is cut off: its header says {float(declared):.2f} s of video, its end cannot be read",
        )


def _count_frames(container: Any, stream: Any, path: str | Path) -> tuple[int, Fraction]:
    """Frames and average rate from the packets, for containers (gif) whose header has neither."""
    container.seek(0)
    base = Fraction(stream.time_base)
    times: list[Fraction] = []
    last = Fraction(0)
    for packet in container.demux(stream):
        if packet.size and packet.pts is not None:
            times.append(packet.pts * base)
            last = max(last, times[-1] + (packet.duration or 0) * base)
    if not times:
        raise VideoError(path, "has no frame")
    rate = average_rate(stream)
    if rate is None:
        span = last - min(times)
        rate = len(times) / span if span > 0 else Fraction(25)
    return len(times), rate
