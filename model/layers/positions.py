"""Positions: factorised rotary tables, or learned embeddings.

Legend: B micro-batch, T latent frames, S patches a frame (row by row), D hidden size; N sequences side by
side, M positions in each (patches of a frame, or frames of a patch), H heads, K head size, P channel
pairs (K/2).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from vdsgen.model.layers.initial import fill_normal

BASE = 10_000.0
"""Longest wavelength over the shortest (arXiv 2104.09864, section 3.2.2)."""

Rotation = tuple[Tensor, Tensor]
"""Cosines and sines, each (M, 1, P)."""


def _frequencies(count: int, device: torch.device) -> Tensor:
    """(count,), from 1 down towards 1/BASE, fp32."""
    return BASE ** (-torch.arange(count, dtype=torch.float32, device=device) / max(count, 1))


def _angles_1d(length: int, count: int, device: torch.device) -> Tensor:
    """(length, count): position times frequency."""
    return torch.outer(torch.arange(length, dtype=torch.float32, device=device), _frequencies(count, device))


class RotaryTables:
    """Rotations of spatial and temporal positions, computed in fp32 once and shared by a model's layers.

    Deliberately no buffers: the engine would cast buffers to half precision before any angle is taken,
    and a pipeline would save them once a layer. Spatial attention turns the first half of the channel
    pairs by the patch's row and the second by its column (arXiv 2403.13298, axial frequencies); temporal
    attention turns all of them by the frame. Tables of every size that clips have come in are kept.
    """

    def __init__(self, head_size: int) -> None:
        assert head_size % 2 == 0, f"rotary positions need an even head size, not {head_size}"
        self.pairs = head_size // 2
        self._cache: dict[tuple[int, int | None, torch.dtype, torch.device], Rotation] = {}

    def spatial(self, rows: int, columns: int, like: Tensor) -> Rotation:
        """(rows * columns, 1, P) cosines and sines in the dtype and on the device of `like`."""
        return self._get(rows, columns, like)

    def temporal(self, frames: int, like: Tensor) -> Rotation:
        """(T, 1, P) cosines and sines in the dtype and on the device of `like`."""
        return self._get(frames, None, like)

    def _get(self, length: int, columns: int | None, like: Tensor) -> Rotation:
        key = (length, columns, like.dtype, like.device)
        if key not in self._cache:
            with torch.no_grad():
                if columns is None:
                    angles_MP = _angles_1d(length, self.pairs, like.device)
                else:
                    angles_MP = self._spatial_angles(length, columns, like.device)
                self._cache[key] = _rotation(angles_MP, like.dtype)
        return self._cache[key]

    def _spatial_angles(self, rows: int, columns: int, device: torch.device) -> Tensor:
        by_row = _angles_1d(rows, self.pairs - self.pairs // 2, device)
        by_column = _angles_1d(columns, self.pairs // 2, device)
        return torch.cat((by_row.repeat_interleave(columns, dim=0), by_column.repeat(rows, 1)), dim=1)


def _rotation(angles_MP: Tensor, dtype: torch.dtype) -> Rotation:
    angles_M1P = angles_MP[:, None]
    return angles_M1P.cos().to(dtype), angles_M1P.sin().to(dtype)


class _Rotate(torch.autograd.Function):
    """Turns channel pairs (i, i + K/2) of x_NMHK by cosine_M1P and sine_M1P (P = K/2).

    Written by hand for its memory traffic, which is all that it costs: ten passes over x forward and
    backward, where the same formula in autograd takes twice that and keeps six temporaries alive.
    """

    @staticmethod
    def forward(ctx: Any, x_NMHK: Tensor, cosine_M1P: Tensor, sine_M1P: Tensor) -> Tensor:
        ctx.save_for_backward(cosine_M1P, sine_M1P)
        return _turned(x_NMHK, cosine_M1P, sine_M1P, 1.0)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        cosine_M1P, sine_M1P = ctx.saved_tensors
        return _turned(gradients[0], cosine_M1P, sine_M1P, -1.0), None, None


def _turned(x_NMHK: Tensor, cosine_M1P: Tensor, sine_M1P: Tensor, direction: float) -> Tensor:
    out = torch.empty_like(x_NMHK, memory_format=torch.contiguous_format)
    first, second = x_NMHK.chunk(2, dim=-1)
    out_first, out_second = out.chunk(2, dim=-1)
    torch.mul(first, cosine_M1P, out=out_first).addcmul_(second, sine_M1P, value=-direction)
    torch.mul(second, cosine_M1P, out=out_second).addcmul_(first, sine_M1P, value=direction)
    return out


def rotated(x_NMHK: Tensor, rotation: Rotation) -> Tensor:
    """x with each head's channels turned by the angles of its position m."""
    turned: Tensor = _Rotate.apply(x_NMHK, *rotation)  # type: ignore[no-untyped-call]
    return turned


class LearnedPositions(nn.Module):
    """One learned vector a patch and one a frame, added to the embedded patches."""

    def __init__(
        self, max_frames: int, max_patches: int, hidden_size: int, generator: torch.Generator
    ) -> None:
        super().__init__()
        self.frames = nn.Parameter(torch.empty(max_frames, hidden_size))
        self.patches = nn.Parameter(torch.empty(max_patches, hidden_size))
        fill_normal(self.frames, 0.02, generator)
        fill_normal(self.patches, 0.02, generator)

    def forward(self, hidden_BTSD: Tensor, first_patch: int = 0) -> Tensor:
        """`first_patch` of the frame is the first one here."""
        frames, patches = hidden_BTSD.shape[1:3]
        own = self.patches[first_patch : first_patch + patches]
        return hidden_BTSD + self.frames[:frames, None] + own
