"""Videos for tests: real clips, and small made ones whose pixels say which frame they are."""

from __future__ import annotations

import os
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import numpy.typing as npt

from vdsgen.model.data.fetch_demo import CLIPS, fetch

Frames = npt.NDArray[np.uint8]

_BITS = 8
_ROOT = Path(__file__).parents[1]


def real_clips() -> Path:
    """The folder of the demo's clips: $VDSGEN_CLIPS, or data/clips, or fetched once into .cache/clips.

    Raises VdsgenError where they cannot be had.
    """
    given = os.environ.get("VDSGEN_CLIPS")
    if given:
        return Path(given)
    fetched = _ROOT / "data" / "clips"
    if all((fetched / name).is_file() for name in CLIPS):
        return fetched
    cache = _ROOT / ".cache" / "clips"
    fetch(cache)
    return cache


def numbered(count: int, *, height: int = 48, width: int = 64, first: int = 0) -> Frames:
    """uint8 (count, height, width, 3): each frame shows its number as eight black or white bars."""
    numbers = np.arange(first, first + count)
    bits = (numbers[:, None] >> np.arange(_BITS)) & 1
    bars = np.repeat(bits, width // _BITS, axis=1)[:, None, :, None]
    return np.broadcast_to(bars * 200 + 28, (count, height, width, 3)).astype(np.uint8)


def number_of(picture: Frames) -> int:
    """What `numbered` wrote into a picture of any size."""
    width = picture.shape[1]
    levels = [
        picture[:, (2 * bit + 1) * width // (2 * _BITS) - 1 : (2 * bit + 1) * width // (2 * _BITS) + 1].mean()
        for bit in range(_BITS)
    ]
    return sum(int(level > 128) << bit for bit, level in enumerate(levels))


def numbers_of(video: Frames) -> list[int]:
    return [number_of(picture) for picture in video]


FORMATS: dict[str, tuple[str, str, dict[str, str]]] = {
    # suffix with a hint -> encoder, pixel format, options
    "h264.mp4": ("libx264", "yuv420p", {"preset": "ultrafast"}),
    "mpeg4.mp4": ("mpeg4", "yuv420p", {}),
    "vp9.webm": ("libvpx-vp9", "yuv420p", {"deadline": "realtime", "cpu-used": "8"}),
    "h264.mkv": ("libx264", "yuv420p", {"preset": "ultrafast"}),
    "qtrle.mov": ("qtrle", "rgb24", {}),
    "mpeg4.avi": ("mpeg4", "yuv420p", {}),
    "palette.gif": ("gif", "rgb8", {}),
}


def write_frames(
    path: Path,
    frames: Frames,
    *,
    rate: Fraction | int = 10,
    encoder: str = "libx264",
    pixel_format: str = "yuv420p",
    options: dict[str, str] | None = None,
    container_options: dict[str, str] | None = None,
    times: Sequence[int] | None = None,
    stream_changes: dict[str, Any] | None = None,
    rotation: int = 0,
) -> Path:
    """Encodes frames with any encoder; `times` are presentation times in units of 1 / rate."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w", options=container_options or {}) as container:
        stream = container.add_stream(encoder, rate=rate, options=options or {})
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt = pixel_format
        stream.codec_context.time_base = 1 / Fraction(rate)
        for name, value in (stream_changes or {}).items():
            setattr(stream.codec_context, name, value)
        if rotation:
            stream.set_display_rotation(rotation)
        source = "rgba" if frames.shape[3] == 4 else "rgb24"
        for index, pixels in enumerate(frames):
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(pixels), format=source)
            frame = frame.reformat(format=pixel_format)
            frame.pts = times[index] if times is not None else index
            frame.time_base = 1 / Fraction(rate)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def write_numbered(path: Path, count: int, *, rate: Fraction | int = 10, **changes: Any) -> Path:
    """A numbered video in the format that the file's name ends with (see FORMATS; .mp4 is H.264)."""
    for ending, (encoder, pixel_format, options) in FORMATS.items():
        if path.name.endswith(ending) or path.suffix == Path(ending).suffix:
            given = {"encoder": encoder, "pixel_format": pixel_format, "options": options, **changes}
            return write_frames(path, numbered(count), rate=rate, **given)
    raise AssertionError(path)


def cut_off(path: Path, share: float) -> Path:
    """Leaves the first `share` of a file's bytes, as a broken copy does."""
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    return path


def damage_packets(path: Path, which: Sequence[int]) -> Path:
    """Overwrites the insides of some of a file's video packets, counted in file order."""
    with av.open(str(path)) as container:
        packets = [packet for packet in container.demux(video=0) if packet.size]
        places = [(packets[index].pos, packets[index].size) for index in which]
    content = bytearray(path.read_bytes())
    for position, size in places:
        content[position : position + size] = b"\xff" * size
    path.write_bytes(bytes(content))
    return path
