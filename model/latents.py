"""Latent codecs: from pixels to what the model is trained on, and back.

A codec takes one clip, float32 (3, T, H, W) in [-1, 1], to float32 latents (C, T', H', W'), and back.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
import torch.nn.functional as F

from vdsgen.spec.data import Data, SpaceToDepth


class LatentCodec(Protocol):
    """What every codec can do."""

    @property
    def channels(self) -> int:
        """Channels of a latent frame."""
        ...

    @property
    def cheap(self) -> bool:
        """Without weights: loader workers may run it. Others run in the training process, once."""
        ...

    def encode(self, video: torch.Tensor) -> torch.Tensor:
        """(3, T, H, W) in [-1, 1] -> latents (C, T', H', W') of about unit size, float32."""
        ...

    def decode(self, latents: torch.Tensor) -> torch.Tensor:
        """Latents (C, T', H', W') -> (3, T, H, W) float32, about [-1, 1], not clipped."""
        ...


@dataclass(frozen=True, slots=True)
class SpaceToDepthCodec:
    """A square of `factor` x `factor` pixels becomes channels: a permutation, hence exact both ways.

    Latents are the pixels themselves, in [-1, 1]: no scale is applied, so that the round trip is
    bit-exact. Natural video then has a standard deviation near 0.5 (the demo's clips: 0.39 to 0.54;
    EDM's sigma_data, arXiv 2206.00364, table 1), half of what normalised autoencoder latents have.

    Latent channel (c * factor + y) * factor + x holds colour c of the pixel in row y, column x of
    each square (torch's pixel_unshuffle).
    """

    factor: int
    cheap: bool = True

    @property
    def channels(self) -> int:
        return 3 * self.factor**2

    def encode(self, video: torch.Tensor) -> torch.Tensor:
        """(3, T, H, W) -> (3 * factor^2, T, H / factor, W / factor), float32."""
        frames = F.pixel_unshuffle(video.float().transpose(0, 1), self.factor)
        return frames.transpose(0, 1).contiguous()

    def decode(self, latents: torch.Tensor) -> torch.Tensor:
        """(3 * factor^2, T, h, w) -> (3, T, h * factor, w * factor), float32."""
        frames = F.pixel_shuffle(latents.float().transpose(0, 1), self.factor)
        return frames.transpose(0, 1).contiguous()


def codec_for(data: Data, device: torch.device | str = "cpu") -> LatentCodec:
    """The codec that `data.latents` asks for; an autoencoder's weights go to `device`.

    Raises VdsgenError where an autoencoder cannot be loaded or is not what the spec says.
    """
    if isinstance(data.latents, SpaceToDepth):
        return SpaceToDepthCodec(data.latents.factor)
    from vdsgen.model.autoencoder import load_autoencoder

    return load_autoencoder(data.latents, device)
