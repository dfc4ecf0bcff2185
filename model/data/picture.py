"""A decoded frame as the picture that people see, and its way to the size the model takes."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import av
import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from av.video.reformatter import VideoReformatter

Picture = npt.NDArray[np.uint8]
"""(H, W, 3), RGB"""

_BT709_FROM_HEIGHT = 720
"""Untagged video of at least this height is taken for BT.709, as players do; below it for BT.601."""

_ONE_THREAD: dict[str, Any] = {"threads": 1} if int(av.__version__.split(".")[0]) >= 18 else {}
"""Starting threads for each frame costs more than converting it."""

_MATRICES = {1: "ITU709", 5: "ITU601", 6: "ITU601", 7: "SMPTE240M"}
"""AVColorSpace -> swscale's name; older PyAV does not look at what the frame says."""

_UNSPECIFIED_COLORSPACE, _FULL_RANGE = 2, 2
"""AVCOL_SPC_UNSPECIFIED, AVCOL_RANGE_JPEG"""


def square_pixels(width: int, height: int, pixel_aspect: Fraction) -> tuple[int, int]:
    """Width and height of a stored picture once its pixels are square."""
    return max(1, round(width * pixel_aspect)), height


class RgbConverter:
    """Frames of one video to pictures; keeps swscale's tables from frame to frame."""

    def __init__(self) -> None:
        self._reformatter: Any = VideoReformatter()

    def __call__(
        self, frame: Any, *, size: tuple[int, int] | None = None, pixel_aspect: Fraction = Fraction(1)
    ) -> Picture:
        """uint8 (H, W, 3): upright, with square pixels, transparency on white.

        `frame` is an av.VideoFrame of any pixel format; `size` the stored width and height that frames
        of this video are brought to (a stream may change its size midway), by default the frame's own.
        """
        width, height = size or (frame.width, frame.height)
        width, height = square_pixels(width, height, pixel_aspect)
        options = dict(_ONE_THREAD)
        matrix = _matrix_of(frame)
        if matrix:
            # Of no effect on RGB, but older PyAV converts only where the two differ.
            options |= {"src_colorspace": matrix, "dst_colorspace": "ITU601"}
        if frame.color_range == _FULL_RANGE:
            options["src_color_range"] = "JPEG"
        has_alpha = any(component.is_alpha for component in frame.format.components)
        converted = self._reformatter.reformat(
            frame, width=width, height=height, format="rgba" if has_alpha else "rgb24", **options
        )
        picture: Picture = converted.to_ndarray()
        if has_alpha:
            picture = _on_white(picture)
        quarter_turns = round(frame.rotation / 90) % 4  # counterclockwise, as np.rot90 counts them
        return np.ascontiguousarray(np.rot90(picture, quarter_turns)) if quarter_turns else picture


def _matrix_of(frame: Any) -> str | None:
    """What turns this frame's YUV into RGB, by swscale's name; None: leave it to FFmpeg."""
    if frame.format.is_rgb:
        return None
    if frame.colorspace == _UNSPECIFIED_COLORSPACE:
        return "ITU709" if frame.height >= _BT709_FROM_HEIGHT else "ITU601"
    return _MATRICES.get(frame.colorspace)


def _on_white(picture: Picture) -> Picture:
    """(H, W, 4) with straight alpha -> (H, W, 3)."""
    alpha = picture[..., 3:].astype(np.uint16)
    blended = (picture[..., :3] * alpha + 255 * (255 - alpha) + 127) // 255
    return blended.astype(np.uint8)


def fit(picture: Picture, height: int, width: int, *, offset: float = 0.5) -> Picture:
    """uint8 (height, width, 3): the largest window of the target's shape, resized with antialiasing.

    `offset` in [0, 1] places the window along the side that is too long; 0.5 is the centre.
    The same as resizing the shorter side to fit and cropping the longer one, without the waste.
    """
    source_height, source_width = picture.shape[:2]
    scale = max(height / source_height, width / source_width)
    window_height = min(source_height, max(1, round(height / scale)))
    window_width = min(source_width, max(1, round(width / scale)))
    top = _place(source_height - window_height, offset)
    left = _place(source_width - window_width, offset)
    window = np.ascontiguousarray(picture[top : top + window_height, left : left + window_width])
    if window.shape[:2] == (height, width):
        return window
    # torch's uint8 kernel: ten times as fast as floating point, and within one level of it.
    pixels = torch.from_numpy(window).permute(2, 0, 1)[None]
    resized = F.interpolate(pixels, size=(height, width), mode="bilinear", antialias=True)
    return resized[0].permute(1, 2, 0).contiguous().numpy()


def _place(room: int, offset: float) -> int:
    return min(room, int(offset * (room + 1)))


def to_unit_range(video: torch.Tensor) -> torch.Tensor:
    """uint8 -> float32 in [-1, 1], shape kept."""
    return video.to(torch.float32).div_(127.5).sub_(1.0)


def to_uint8(video: torch.Tensor) -> torch.Tensor:
    """float in [-1, 1] (values outside are clipped) -> uint8, shape kept."""
    return video.float().add(1.0).mul_(127.5).round_().clamp_(0, 255).to(torch.uint8)
