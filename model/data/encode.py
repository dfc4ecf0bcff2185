"""Writing videos that play: mp4 for players, gif for pages."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterable
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import numpy.typing as npt

from vdsgen.errors import VdsgenError

Frames = npt.NDArray[np.uint8]
"""(T, H, W, 3), RGB"""


def write_video(path: str | Path, frames: Frames, frame_rate: float) -> None:
    """Writes uint8 (T, H, W, 3) as .mp4 (H.264, or MPEG-4 where FFmpeg has no H.264 encoder) or .gif.

    The file appears under its name when it is complete; folders are made. Raises VdsgenError for
    another suffix, and where the file cannot be written.
    """
    target = Path(path)
    writers: dict[str, Callable[[Path, Frames, Fraction], None]] = {".mp4": _write_mp4, ".gif": _write_gif}
    writer = writers.get(target.suffix.lower())
    if writer is None:
        raise VdsgenError(
            f"{target}: cannot write {target.suffix or 'a file without suffix'}", remedy="use .mp4 or .gif"
        )
    assert frames.dtype == np.uint8 and frames.ndim == 4 and frames.shape[3] == 3, frames.shape
    assert len(frames), "a video without frames"
    unfinished = target.with_name(f".{target.name}.{os.getpid()}.part")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        writer(unfinished, frames, Fraction(frame_rate).limit_denominator(1001))
        unfinished.replace(target)
    except (av.FFmpegError, OSError) as error:
        raise VdsgenError(f"{target}: cannot be written: {error}") from error
    finally:
        with contextlib.suppress(OSError):
            unfinished.unlink(missing_ok=True)


def _write_mp4(path: Path, frames: Frames, frame_rate: Fraction) -> None:
    encoder, options = _mp4_encoder()
    # Halved colour planes need even sizes.
    even = np.pad(frames, ((0, 0), (0, frames.shape[1] % 2), (0, frames.shape[2] % 2), (0, 0)), mode="edge")
    with av.open(str(path), "w", format="mp4", options={"movflags": "+faststart"}) as container:
        stream = container.add_stream(encoder, rate=frame_rate, options=options)
        stream.height, stream.width = even.shape[1:3]
        stream.pix_fmt = "yuv420p"
        _tag_as_bt709(stream)
        converted = (
            av.VideoFrame.from_ndarray(frame, format="rgb24").reformat(
                format="yuv420p", dst_colorspace="ITU709"
            )
            for frame in even
        )
        _encode(container, stream, converted)


def _mp4_encoder() -> tuple[str, dict[str, str]]:
    try:
        av.codec.Codec("libx264", "w")
    except (ValueError, av.FFmpegError):  # UnknownCodecError is a ValueError
        return "mpeg4", {"qmin": "2", "qmax": "3"}
    return "libx264", {"crf": "16", "preset": "medium"}


def _tag_as_bt709(stream: Any) -> None:
    """So that players and our own decoder invert the very matrix that was used."""
    bt709, limited = 1, 1
    context = stream.codec_context
    context.colorspace = context.color_primaries = context.color_trc = bt709
    context.color_range = limited


def _write_gif(path: Path, frames: Frames, frame_rate: Fraction) -> None:
    """With a palette made for these frames; without one, gif has six levels of each colour."""
    height, width = frames.shape[1:3]
    with av.open(str(path), "w", format="gif", options={"loop": "0"}) as container:
        stream = container.add_stream("gif", rate=frame_rate)
        stream.height, stream.width = height, width
        stream.pix_fmt = "pal8"
        pictures = [
            av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), format="rgb24") for frame in frames
        ]
        _encode(container, stream, _with_palette(pictures, width, height, frame_rate))


def _with_palette(pictures: list[Any], width: int, height: int, frame_rate: Fraction) -> list[Any]:
    graph = av.filter.Graph()
    source = graph.add_buffer(width=width, height=height, format="rgb24", time_base=1 / frame_rate)
    split = graph.add("split")
    make = graph.add("palettegen")
    use = graph.add("paletteuse", "dither=sierra2_4a")
    sink = graph.add("buffersink")
    source.link_to(split)
    split.link_to(use, 0, 0)
    split.link_to(make, 1, 0)
    make.link_to(use, 0, 1)
    use.link_to(sink)
    graph.configure()
    for index, picture in enumerate(pictures):
        picture.pts, picture.time_base = index, 1 / frame_rate
        source.push(picture)
    source.push(None)
    mapped = []
    while True:
        try:
            mapped.append(sink.pull())
        except (av.error.EOFError, av.error.BlockingIOError):
            return mapped


def _encode(container: Any, stream: Any, frames: Iterable[Any]) -> None:
    for index, frame in enumerate(frames):
        frame.pts, frame.time_base = index, 1 / Fraction(stream.codec_context.framerate)
        container.mux(stream.encode(frame))
    container.mux(stream.encode(None))
