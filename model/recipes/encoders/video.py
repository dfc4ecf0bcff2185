"""Clips, and what is shown of their first frames, as latents."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping

import torch
from torch import Tensor

from vdsgen.model.autoencoder import AutoencoderCodec
from vdsgen.model.data.order import generator_for
from vdsgen.model.data.picture import to_unit_range
from vdsgen.spec.recipes.recipe import IMAGE_NOISE_VARIANTS, ImageConditioning


def image_latents(codec: AutoencoderCodec, clip: Tensor, image: ImageConditioning) -> Mapping[str, Tensor]:
    """uint8 (3, T, H, W) -> `image_latents`: (C, T', H', W') of the clip that is grey after its first frame;
    or (variants, C, H', W') of the first frame with noise on its pixels, and `image_noise` (variants,), how
    much.

    The noise is a function of the frame's pixels: the same clip is encoded to the same tensors.
    """
    first = to_unit_range(clip[:, :1])
    if image.noise is None:
        grey = torch.zeros(3, clip.shape[1], *clip.shape[2:])
        grey[:, :1] = first
        return {"image_latents": codec.encode(grey).cpu()}
    mean, std = image.noise
    digest = hashlib.sha256(clip[:, 0].contiguous().numpy().tobytes()).hexdigest()
    generator = generator_for(0, "image noise", digest)
    latents, sizes = [], []
    for _ in range(IMAGE_NOISE_VARIANTS):
        size = math.exp(mean + std * float(torch.randn((), generator=generator)))
        noisy = first + size * torch.randn(first.shape, generator=generator)
        latents.append(_scaled(codec, codec.encode_raw(noisy), image.scaled)[:, 0].cpu())
        sizes.append(size)
    return {"image_latents": torch.stack(latents), "image_noise": torch.tensor(sizes)}


def _scaled(codec: AutoencoderCodec, raw: Tensor, how: str) -> Tensor:
    if how == "raw":
        return raw
    if how == "cogvideox" and codec.model.config.get("invert_scale_latents"):
        return raw / codec.model.config.scaling_factor  # type: ignore[no-any-return]
    return codec.normalisation.apply(raw)
