"""The bundled model family's sizes, and what a clip becomes on its way through the model."""

from __future__ import annotations

import hashlib
from typing import Literal, NamedTuple, Self

from pydantic import model_validator

from vdsgen.spec.base import CatalogName, Name, PositiveInt, Spec, SpecError
from vdsgen.spec.canonical import canonical_json


class Vdt(Spec):
    """Sizes of a latent spatio-temporal video diffusion transformer (the bundled family)."""

    family: Literal["vdt"] = "vdt"
    name: Name = "vdt"
    """What plans call it; no part of the architecture."""
    in_channels: PositiveInt
    """Channels of a latent frame; what the latent codec gives."""
    patch_size: PositiveInt
    """Edge of a square spatial patch, latent pixels."""
    hidden_size: PositiveInt
    depth: PositiveInt
    """Number of blocks; each is one pipeline layer."""
    heads: PositiveInt
    mlp_hidden_size: PositiveInt
    temporal_kernel_size: PositiveInt = 3
    position: Literal["rotary", "learned"] = "rotary"
    max_frames: PositiveInt = 64
    """Learned positions only: latent frames there are embeddings for."""
    max_patches: PositiveInt = 1024
    """Learned positions only: patches a frame there are embeddings for."""
    condition: Literal["none", "class", "text"] = "text"
    classes: PositiveInt = 1000
    """condition: class. Size of the embedding table (one more row stands for 'no condition')."""
    text_hidden_size: PositiveInt = 4096
    """condition: text. Width of the text encoder's output."""

    @model_validator(mode="after")
    def _sizes_agree(self) -> Self:
        if self.hidden_size % self.heads:
            raise SpecError("heads", f"heads ({self.heads}) must divide hidden_size ({self.hidden_size})")
        if (self.hidden_size // self.heads) % 2 and self.position == "rotary":
            raise SpecError(
                "heads",
                f"rotary positions need an even head size, hidden_size / heads is "
                f"{self.hidden_size // self.heads}",
            )
        if self.temporal_kernel_size % 2 == 0:
            raise SpecError("temporal_kernel_size", f"must be odd, is {self.temporal_kernel_size}")
        return self


def architecture_sha256(model: Vdt) -> str:
    """Names the layers that these sizes give, whatever the model is called: what profiles are kept by."""
    return hashlib.sha256(canonical_json(model, without=frozenset({"name"}))).hexdigest()


class PresetModel(Spec):
    """A catalogue model with some of its sizes changed."""

    preset: CatalogName
    in_channels: PositiveInt | None = None
    patch_size: PositiveInt | None = None
    depth: PositiveInt | None = None
    position: Literal["rotary", "learned"] | None = None
    max_frames: PositiveInt | None = None
    max_patches: PositiveInt | None = None
    condition: Literal["none", "class", "text"] | None = None
    classes: PositiveInt | None = None
    text_hidden_size: PositiveInt | None = None


class Geometry(NamedTuple):
    """What one sample is to the model: the variables that layer profiles are polynomials of."""

    frames: int
    """Latent frames (T)."""
    patches: int
    """Patches, that is spatial tokens, a frame (S)."""
    text_tokens: int
    """Length of the text condition (L), 0 where there is none."""
    latent_height: int
    latent_width: int
    sequence_parallel_size: int = 1
    """Ranks that share the sample, each with its part of the rows of patches."""
