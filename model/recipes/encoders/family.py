"""All encoders of one family, from the folder of its pipeline: what the cache asks for clips and captions."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from vdsgen.errors import VdsgenError
from vdsgen.model.autoencoder import AutoencoderCodec, open_autoencoder
from vdsgen.model.data.picture import to_unit_range
from vdsgen.model.recipes.encoders.folder import (
    identity_of,
    load_encoder,
    load_image_processor,
    load_tokenizer,
    part_of,
    read_config,
)
from vdsgen.model.recipes.encoders.image import hidden_states, projected
from vdsgen.model.recipes.encoders.text import encode_caption
from vdsgen.model.recipes.encoders.video import image_latents
from vdsgen.spec.recipes.recipe import Recipe

Part = Literal["clip", "text"]

CODE = 1
"""Counted up whenever the same weights and settings give other tensors than before."""

ENCODER_DTYPE = torch.bfloat16
"""Of text and image encoders, which are large (LLaMA, T5-XXL): what finetrainers and diffusion-pipe run them
in. Autoencoders run in float32."""

AUTOENCODER, IMAGE_ENCODER = "vae", "image_encoder"
IMAGE_PROCESSORS = {"hidden_states": "image_processor", "projected": "feature_extractor"}
_IMAGE_ENCODERS = {"hidden_states": "CLIPVisionModel", "projected": "CLIPVisionModelWithProjection"}


class FamilyEncoders:
    """Encodes clips and captions for a recipe. Weights are loaded at the first call that needs them.

    Tensors are on the CPU, named as in `Recipe.cached`; those of text are in the encoders' element type.
    """

    def __init__(
        self,
        recipe: Recipe,
        folder: Path,
        device: torch.device | str = "cpu",
        encoder_dtype: torch.dtype = ENCODER_DTYPE,
    ) -> None:
        self.recipe = recipe
        self.folder = folder
        self.device = device
        self.encoder_dtype = encoder_dtype
        self._loaded: dict[str, Any] = {}

    def fingerprint(self, part: Part) -> str:
        """Changes whenever the tensors of this part may. Loads no weights. Empty: there is no such part."""
        recipe = self.recipe
        if part == "text":
            if not recipe.text:
                return ""
            names = [name for text in recipe.text for name in (text.tokenizer, text.folder)]
            settings = repr((CODE, recipe.text, "text_mask" in recipe.cached, str(self.encoder_dtype)))
        else:
            names = [AUTOENCODER]
            if recipe.image and recipe.image.embedding:
                names += [IMAGE_ENCODER, IMAGE_PROCESSORS[recipe.image.embedding]]
            settings = repr((CODE, recipe.image, str(self.encoder_dtype)))
        digest = hashlib.sha256(settings.encode())
        for name in names:
            digest.update(f"\0{name}\0{identity_of(part_of(self.folder, name))}".encode())
        return digest.hexdigest()

    def encode_text(self, caption: str) -> dict[str, Tensor]:
        """`text`, `text_mask`, `pooled_text`: those that the recipe wants."""
        found: dict[str, Tensor] = {}
        for encoding in self.recipe.text:
            found |= encode_caption(
                encoding,
                self._tokenizer(encoding.tokenizer),
                self._encoder(encoding.folder, encoding.encoder),
                caption,
            )
        return {name: found[name] for name in self.recipe.cached if name in found}

    def encode_clip(self, clip: Tensor) -> dict[str, Tensor]:
        """uint8 (3, T, H, W) -> `latents` (C, T', H', W') float32, normalised, and what the recipe wants of
        the first frame: `image_latents`, `image_noise`, `image`, `image_embedding`."""
        found = {"latents": self.codec.encode(to_unit_range(clip)).cpu()}
        image = self.recipe.image
        if image is not None:
            found |= image_latents(self.codec, clip, image)
            if image.embedding == "hidden_states":
                processor = self._image_processor(IMAGE_PROCESSORS[image.embedding])
                found["image"] = hidden_states(self._image_encoder(image.embedding), processor, clip[:, 0])
            elif image.embedding == "projected":
                figures = read_config(
                    part_of(self.folder, IMAGE_PROCESSORS[image.embedding]), "preprocessor_config.json"
                )
                found["image_embedding"] = projected(
                    self._image_encoder(image.embedding),
                    clip[:, 0],
                    figures["image_mean"],
                    figures["image_std"],
                )
        return found

    def encode(self, clip: Tensor, caption: str) -> dict[str, Tensor]:
        """Both at once: a sample as vdsgen.model.recipes.draw takes it."""
        return self.encode_clip(clip) | self.encode_text(caption)

    def decode(self, latents: Tensor) -> Tensor:
        """Latents (C, T', H', W') -> (3, T, H, W) float32, about [-1, 1], not clipped."""
        return self.codec.decode(latents)

    @property
    def codec(self) -> AutoencoderCodec:
        """The pipeline's autoencoder. Raises VdsgenError where it is of another family."""
        if AUTOENCODER not in self._loaded:
            part = part_of(self.folder, AUTOENCODER)
            wanted, name = self.recipe.autoencoder, read_config(part).get("_class_name")
            if name != wanted.class_name:
                raise VdsgenError(
                    f"{part} is a {name}; {self.recipe.summary} is trained on latents of {wanted.class_name}",
                    remedy=f"name the folder of a pipeline of {self.recipe.class_name}",
                )
            codec = open_autoencoder(part, self.device)
            found = codec.figures
            if (found.channels, found.spatial_factor, found.temporal_factor) != (
                wanted.channels,
                wanted.spatial_factor,
                wanted.temporal_factor,
            ):
                raise VdsgenError(
                    f"{part} gives {found.channels} channels, {found.spatial_factor} x smaller in space and "
                    f"{found.temporal_factor} x in time; the model is trained on {wanted.channels}, "
                    f"{wanted.spatial_factor} x and {wanted.temporal_factor} x",
                    remedy="name the pipeline that the model is of",
                )
            self._loaded[AUTOENCODER] = codec
        codec = self._loaded[AUTOENCODER]
        assert isinstance(codec, AutoencoderCodec)
        return codec

    def _encoder(self, folder: str, class_name: str) -> Any:
        if folder not in self._loaded:
            self._loaded[folder] = load_encoder(
                self.folder, folder, class_name, self.device, self.encoder_dtype
            )
        return self._loaded[folder]

    def _image_encoder(self, embedding: str) -> Any:
        return self._encoder(IMAGE_ENCODER, _IMAGE_ENCODERS[embedding])

    def _tokenizer(self, name: str) -> Any:
        if name not in self._loaded:
            self._loaded[name] = load_tokenizer(self.folder, name)
        return self._loaded[name]

    def _image_processor(self, name: str) -> Any:
        if name not in self._loaded:
            self._loaded[name] = load_image_processor(self.folder, name)
        return self._loaded[name]


@dataclass(frozen=True, slots=True)
class MakeFamilyEncoders:
    """From a device's name to encoders there; can be pickled, for processes that encode."""

    recipe: Recipe
    folder: Path
    encoder_dtype: torch.dtype = ENCODER_DTYPE

    def __call__(self, device: str) -> FamilyEncoders:
        return FamilyEncoders(self.recipe, self.folder, device, self.encoder_dtype)


def encode_text(
    recipe: Recipe, folder: Path, captions: list[str], encoder_dtype: torch.dtype = ENCODER_DTYPE
) -> list[dict[str, Tensor]]:
    """Captions by the encoders of a pipeline's folder, one after the other."""
    encoders = FamilyEncoders(recipe, folder, encoder_dtype=encoder_dtype)
    return [encoders.encode_text(caption) for caption in captions]


def encode_video(
    recipe: Recipe, folder: Path, clip: Tensor, encoder_dtype: torch.dtype = ENCODER_DTYPE
) -> dict[str, Tensor]:
    """One clip, uint8 (3, T, H, W), by the autoencoder and image encoder of a pipeline's folder."""
    return FamilyEncoders(recipe, folder, encoder_dtype=encoder_dtype).encode_clip(clip)
