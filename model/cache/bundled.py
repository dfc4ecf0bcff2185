"""The bundled family's encoders: the experiment's latent codec and its text encoder."""

from __future__ import annotations

import functools
import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from vdsgen.model.cache.content import Contents
from vdsgen.model.cache.encoders import Part, Tensors
from vdsgen.model.data.picture import to_unit_range
from vdsgen.model.data.text import CaptionEncoder
from vdsgen.model.latents import LatentCodec, codec_for
from vdsgen.spec.data import Autoencoder, Data

CODE = 1
"""Counts up whenever the same weights give other tensors."""

_READ_SUFFIXES = {".json", ".safetensors", ".txt", ".model"}
"""Files of a model's folder that its library reads."""


class BundledEncoders:
    """`latents` (C, T', H', W') float32 of a clip; `text` (L, D) of a caption, as long as its own tokens."""

    def __init__(self, data: Data, *, has_text: bool, device: str) -> None:
        self._data = data
        self._has_text = has_text
        self._device = device

    def fingerprint(self, part: Part) -> str:
        if part == "clip":
            return codec_fingerprint(self._data)
        text = self._data.text_encoder
        if not self._has_text or text is None:
            return ""
        folder = folder_fingerprint(Path(text.path), self._data)
        return hash_of_facts(code=CODE, max_tokens=text.max_tokens, folder=folder)

    def encode_clip(self, clip: torch.Tensor) -> Tensors:
        return {"latents": self._codec.encode(to_unit_range(clip)).float().cpu()}

    def encode_text(self, caption: str) -> Tensors:
        return {"text": self._captions.embed(caption)}

    @functools.cached_property
    def _codec(self) -> LatentCodec:
        return codec_for(self._data, self._device)

    @functools.cached_property
    def _captions(self) -> CaptionEncoder:
        assert self._data.text_encoder is not None
        return CaptionEncoder(self._data.text_encoder, self._device)


@dataclass(frozen=True, slots=True)
class MakeBundledEncoders:
    """From a device's name to encoders there; can be pickled, for processes that encode."""

    data: Data
    has_text: bool

    def __call__(self, device: str) -> BundledEncoders:
        return BundledEncoders(self.data, has_text=self.has_text, device=device)


def codec_fingerprint(data: Data) -> str:
    """Of `data.latents`: changes with its figures, and with everything in an autoencoder's folder."""
    latents = data.latents
    facts: dict[str, Any] = latents.model_dump(mode="json", exclude={"path"})
    if isinstance(latents, Autoencoder):
        facts["folder"] = folder_fingerprint(Path(latents.path), data)
    return hash_of_facts(code=CODE, **facts)


def folder_fingerprint(folder: Path, data: Data) -> str:
    """Of everything that a library reads from a model's folder; the cache remembers what files hold. Raises
    OSError."""
    assert data.cache is not None
    contents = Contents(Path(data.cache.folder))
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path.suffix in _READ_SUFFIXES)
    digest = hashlib.sha256()
    for path, found in zip(files, contents.of_all(files), strict=True):
        if isinstance(found, OSError):
            raise found
        digest.update(f"{path.relative_to(folder).as_posix()} {found}\n".encode())
    contents.save()
    return digest.hexdigest()


def hash_of_facts(**facts: Any) -> str:
    """SHA-256 of values that JSON has."""
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()
