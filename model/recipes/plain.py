"""Encoders for a diffusers model without its pipeline: the experiment's own latents, and captions unused.

For trying a layout or a configuration where no weights are at hand: with random weights nothing is lost.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from vdsgen.errors import VdsgenError
from vdsgen.model.data.picture import to_unit_range
from vdsgen.model.latents import LatentCodec
from vdsgen.spec.recipes.recipe import Recipe

TEXT_WIDTHS = ("text_dim", "text_embed_dim", "caption_channels")
"""Keys of configurations that say how wide the text encoder's output is."""


class PlainEncoders:
    """Latents of a codec; of every caption zeros, of which one counts where there is a mask."""

    def __init__(self, recipe: Recipe, config: Mapping[str, Any], codec: LatentCodec) -> None:
        self.recipe = recipe
        self.config = config
        self.codec = codec
        if recipe.image is not None:
            raise VdsgenError(
                f"{recipe.summary} is shown the first frame as its own pipeline encodes it",
                remedy="set data.pipeline to the model's local pipeline folder",
            )

    def encode_clip(self, clip: Tensor) -> dict[str, Tensor]:
        """uint8 (3, T, H, W) -> `latents` (C, T', H', W') float32"""
        return {"latents": self.codec.encode(to_unit_range(clip)).cpu()}

    def encode_text(self, caption: str) -> dict[str, Tensor]:  # noqa: ARG002
        """`text` (L, D), `text_mask` (L,), `pooled_text` (D,): those that the recipe wants."""
        found: dict[str, Tensor] = {}
        for encoding in self.recipe.text:
            if encoding.gives == "pooled_text":
                found["pooled_text"] = torch.zeros(self.config["pooled_projection_dim"])
                continue
            width = next(self.config[key] for key in TEXT_WIDTHS if key in self.config)
            found["text"] = torch.zeros(encoding.max_tokens, width)
            found["text_mask"] = (torch.arange(encoding.max_tokens) == 0).long()
        return {name: found[name] for name in self.recipe.cached if name in found}

    def decode(self, latents: Tensor) -> Tensor:
        """(C, T', H', W') -> (3, T, H, W) float32, about [-1, 1], not clipped"""
        return self.codec.decode(latents)
