"""How steadily a video's frames follow each other, without any network or download.

Legend: T frames, H rows and W columns of pixels, N displacements tried.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise

import torch
from torch import Tensor
from torch.nn import functional as F

BLOCK = 8
"""Pixels of a block's edge whose motion is looked for."""
REACH = 4
"""Pixels that a block may move from one frame to the next, each way."""
MOST_PIXELS = 256
"""Of the shorter side of frames that are compared; larger ones are averaged down by a whole number."""
LUMA = (0.299, 0.587, 0.114)
"""ITU-R BT.601"""


@dataclass(frozen=True, slots=True)
class Consistency:
    """Means over neighbouring frames, and over clips. A still picture is perfect in all but `motion_pixels`:
    read that one first."""

    temporal_flickering: float
    """1 - mean absolute difference of neighbouring frames, pixels in [0, 1]: VBench's measure (arXiv
    2311.17982), which it applies to still scenes. 1: no change at all."""
    warping_error: float
    """Mean squared difference of a frame and the next one, moved back by the motion found, where that motion
    is the same both ways (the warping error of arXiv 1808.00449, with block matching for its optical flow).
    0: what moves keeps its look."""
    frame_correlation: float
    """Pearson's, of the luma of neighbouring frames. 1: the same up to brightness and contrast."""
    motion_pixels: float
    """Mean displacement of blocks."""

    def values(self) -> dict[str, float]:
        return {key: round(value, 6) for key, value in asdict(self).items()}


def consistency(clips: Sequence[Tensor]) -> Consistency | None:
    """Of clips uint8 (T, H, W, 3); None where no clip has two frames. Large frames are looked at smaller."""
    pairs = [pair for clip in clips for pair in pairwise(_frames(clip))]
    if not pairs:
        return None
    rows = torch.tensor([_pair(first, second) for first, second in pairs])
    return Consistency(*(float(value) for value in rows.mean(0)))


def _frames(clip_THWC: Tensor) -> Tensor:
    """(T, 3, H, W) in [0, 1], the shorter side at most MOST_PIXELS."""
    frames = clip_THWC.float().div(255).permute(0, 3, 1, 2)
    factor = -(-min(frames.shape[2:]) // MOST_PIXELS)
    return frames if factor == 1 else F.avg_pool2d(frames, factor)


def _pair(first: Tensor, second: Tensor) -> tuple[float, float, float, float]:
    luma = torch.tensor(LUMA)[:, None, None]
    gray, next_gray = (first * luma).sum(0), (second * luma).sum(0)
    there, back = block_motion(gray, next_gray), block_motion(next_gray, gray)
    error = _warping_error(first, second, there, back)
    flickering = 1 - float((first - second).abs().mean())
    return flickering, error, _correlation(gray, next_gray), float(there.float().norm(dim=0).mean())


def block_motion(frame_HW: Tensor, next_HW: Tensor) -> Tensor:
    """int64 (2, H, W): by how many rows and columns each pixel's block has moved in the next frame. Of
    equally good displacements the shortest."""
    height, width = frame_HW.shape
    steps = range(-REACH, REACH + 1)
    every = [(row, column) for row in steps for column in steps]
    moves = sorted(every, key=lambda move: (move[0] ** 2 + move[1] ** 2, move))
    padded = F.pad(next_HW[None, None], (REACH,) * 4, mode="replicate")[0, 0]
    shifted_NHW = torch.stack(
        [
            padded[REACH + row : REACH + row + height, REACH + column : REACH + column + width]
            for row, column in moves
        ]
    )
    costs = F.avg_pool2d((shifted_NHW - frame_HW).abs()[:, None], BLOCK, ceil_mode=True)[:, 0]
    # Rounded, or the last bits of a sum would choose between displacements that are equally good.
    chosen = (costs * 1e5).round().argmin(0)
    motion = torch.tensor(moves).T[:, chosen]
    return motion.repeat_interleave(BLOCK, 1).repeat_interleave(BLOCK, 2)[:, :height, :width]


def _warping_error(first: Tensor, second: Tensor, there: Tensor, back: Tensor) -> float:
    """Over pixels whose way there and back ends within a pixel of where it began; all, if there is none."""
    height, width = first.shape[1:]
    rows = torch.arange(height)[:, None] + there[0]
    columns = torch.arange(width)[None, :] + there[1]
    inside = (rows >= 0) & (rows < height) & (columns >= 0) & (columns < width)
    rows, columns = rows.clamp(0, height - 1), columns.clamp(0, width - 1)
    returned = there + back[:, rows, columns]
    seen = inside & (returned.abs().amax(0) <= 1)
    if not seen.any():
        seen = torch.ones_like(seen)
    squares = (first - second[:, rows, columns]).square().mean(0)
    return float(squares[seen].mean())


def _correlation(first: Tensor, second: Tensor) -> float:
    """1 for two frames without any contrast."""
    a, b = first - first.mean(), second - second.mean()
    norms = a.norm() * b.norm()
    return float((a * b).sum() / norms) if norms > 1e-6 else 1.0
