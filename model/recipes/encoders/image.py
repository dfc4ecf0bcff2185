"""The first frame of a clip as CLIP sees it, for image-to-video families."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

PROJECTED_EDGE = 224
"""Pixels a side of what SVD's image encoder takes (`pipeline_stable_video_diffusion.py:207`)."""


@torch.no_grad()
def hidden_states(encoder: Any, processor: Any, frame: Tensor) -> Tensor:
    """uint8 (3, H, W) -> (tokens, D): the last but one hidden states (`pipeline_wan_i2v.py:251`)."""
    pixels = processor(images=frame.permute(1, 2, 0).numpy(), return_tensors="pt").pixel_values
    output = encoder(pixel_values=pixels.to(encoder.device, encoder.dtype), output_hidden_states=True)
    return output.hidden_states[-2][0].cpu().clone()  # type: ignore[no-any-return]


@torch.no_grad()
def projected(encoder: Any, frame: Tensor, mean: Sequence[float], std: Sequence[float]) -> Tensor:
    """uint8 (3, H, W) -> (1, D): the projected class token (`pipeline_stable_video_diffusion.py:191`)."""
    pixels = resized(frame.float()[None] / 127.5 - 1, PROJECTED_EDGE)
    pixels = ((pixels + 1) / 2 - _row(mean)) / _row(std)
    output = encoder(pixel_values=pixels.to(encoder.device, encoder.dtype))
    return output.image_embeds[0].cpu()[None].clone()  # type: ignore[no-any-return]


def _row(values: Sequence[float]) -> Tensor:
    return torch.tensor(list(values)).view(1, -1, 1, 1)


def resized(image: Tensor, edge: int) -> Tensor:
    """(1, C, H, W) -> (1, C, edge, edge): blurred by a Gaussian of (factor - 1) / 2 pixels against aliasing,
    then bicubic with aligned corners, as SVD was trained (`pipeline_stable_video_diffusion.py:641`)."""
    for dim in (-2, -1):
        factor = image.shape[dim] / edge
        sigma = max((factor - 1) / 2, 0.001)
        image = _blurred(image, dim, sigma, int(max(4 * sigma, 3)) | 1)
    return F.interpolate(image, size=(edge, edge), mode="bicubic", align_corners=True)


def _blurred(image: Tensor, dim: int, sigma: float, size: int) -> Tensor:
    """Along one axis, mirrored at the ends."""
    places = torch.arange(size, dtype=image.dtype) - size // 2
    kernel = torch.exp(-(places**2) / (2 * sigma**2))
    kernel = (kernel / kernel.sum()).view(1, 1, -1)
    moved = image.movedim(dim, -1)
    rows = F.pad(moved.reshape(1, -1, moved.shape[-1]), (size // 2, size // 2), mode="reflect")
    filtered = F.conv1d(rows.movedim(0, 1), kernel).movedim(1, 0)
    return filtered.reshape(moved.shape).movedim(-1, dim)
