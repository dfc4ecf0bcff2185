"""Small models of each class, what their first layers take, and diffusers' own forward on the same."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

Inputs = tuple[Tensor, ...]


@dataclass(frozen=True)
class Tiny:
    """`weights` is a folder, or None for random ones."""

    class_name: str
    config: Mapping[str, Any]
    inputs: Callable[[], Inputs]
    """Of the first layer."""
    forward: Callable[[Any, Inputs], Tensor]
    """The unwrapped model on these inputs: (B, C, T, H, W)."""
    weights: str | None = None


def normal(*shape: int) -> Tensor:
    """The same numbers for a shape each time."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(sum(shape)))


def _wan(model: Any, inputs: Inputs) -> Tensor:
    noised, timestep, text, *image = inputs
    if timestep.ndim == 2:  # diffusers wants one a token
        tokens = noised.shape[2:].numel() // 4
        timestep = timestep.repeat_interleave(tokens // timestep.shape[1], dim=1)
    image_text = image[0] if image else None
    out: Tensor = model(noised, timestep, text, image_text, return_dict=False)[0]
    return out


WAN = {
    "patch_size": [1, 2, 2],
    "num_attention_heads": 2,
    "attention_head_dim": 12,
    "in_channels": 4,
    "out_channels": 4,
    "text_dim": 20,
    "freq_dim": 8,
    "ffn_dim": 40,
    "num_layers": 4,
}
TINY = {
    "wan": Tiny(
        "WanTransformer3DModel",
        WAN,
        lambda: (normal(2, 4, 3, 4, 6), torch.tensor([700.0, 20.0]), normal(2, 5, 20)),
        _wan,
    ),
    "wan, image": Tiny(
        "WanTransformer3DModel",
        WAN | {"in_channels": 9, "image_dim": 16, "added_kv_proj_dim": 24},
        # diffusers takes the last 512 tokens for text (transformer_wan.py, WanAttnProcessor)
        lambda: (normal(2, 9, 3, 4, 6), torch.tensor([700.0, 20.0]), normal(2, 512, 20), normal(2, 257, 16)),
        _wan,
    ),
    "wan, a timestep a frame": Tiny(
        "WanTransformer3DModel",
        WAN,
        lambda: (normal(2, 4, 3, 4, 6), torch.tensor([[0.0, 700, 700], [0, 20, 20]]), normal(2, 5, 20)),
        _wan,
    ),
}
