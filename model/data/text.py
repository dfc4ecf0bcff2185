"""Captions as text embeddings: every distinct caption goes through the encoder once, before training."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from vdsgen.errors import VdsgenError
from vdsgen.model.data.video import printable
from vdsgen.model.weight_files import TRANSFORMERS, variant_of
from vdsgen.spec.data import TextEncoder

CAPTIONS_AT_ONCE = 8

_ENCODER_CLASSES = {
    "t5": "T5EncoderModel",
    "mt5": "MT5EncoderModel",
    "umt5": "UMT5EncoderModel",
    "clip": "CLIPTextModel",
    "clip_text_model": "CLIPTextModel",
}
"""By `model_type`; models that are more than their text encoder. All others load as AutoModel."""


@dataclass(frozen=True, slots=True)
class CaptionTable:
    """The embeddings of the distinct captions of a run, each as long as its own tokens."""

    tokens: torch.Tensor
    """(all tokens, D) in the encoder's element type"""
    places: dict[str, tuple[int, int]]
    """Caption -> its first row, and one past its last."""
    max_tokens: int

    @property
    def width(self) -> int:
        return self.tokens.shape[1]

    def padded(self, caption: str) -> torch.Tensor:
        """(max_tokens, D) float32: the caption's embedding, zeros after it."""
        start, stop = self.places[caption]
        return padded(self.tokens[start:stop], self.max_tokens)


def padded(embedding: torch.Tensor, max_tokens: int) -> torch.Tensor:
    """(length, D) of any element type -> (max_tokens, D) float32, zeros after the last token."""
    rows = torch.zeros(max_tokens, embedding.shape[1])
    rows[: len(embedding)] = embedding
    return rows


def embed_captions(
    encoder: TextEncoder, captions: Iterable[str], device: torch.device | str = "cpu"
) -> CaptionTable:
    """Embeds the distinct captions and the empty one with a local transformers text encoder.

    Captions are cut at `max_tokens` tokens. The encoder is in memory only while this runs.
    Raises VdsgenError where the folder does not hold a loadable encoder.
    """
    distinct = sorted({"", *captions})
    tokenizer, model = _load(encoder)
    model.to(device)
    rows: list[torch.Tensor] = []
    places: dict[str, tuple[int, int]] = {}
    filled = 0
    for first in range(0, len(distinct), CAPTIONS_AT_ONCE):
        batch = distinct[first : first + CAPTIONS_AT_ONCE]
        for caption, embedding in zip(batch, _embed(tokenizer, model, batch, encoder, device), strict=True):
            places[caption] = (filled, filled + len(embedding))
            filled += len(embedding)
            rows.append(embedding)
    return CaptionTable(torch.cat(rows), places, encoder.max_tokens)


class CaptionEncoder:
    """A text encoder in memory, for one caption at a time."""

    def __init__(self, encoder: TextEncoder, device: torch.device | str) -> None:
        """Raises VdsgenError where the folder does not hold a loadable encoder."""
        self._encoder, self._device = encoder, device
        self._tokenizer, self._model = _load(encoder)
        self._model.to(device)

    def embed(self, caption: str) -> torch.Tensor:
        """(length, D) in the encoder's element type, on the CPU: what `embed_captions` gives."""
        (embedding,) = _embed(self._tokenizer, self._model, [caption], self._encoder, self._device)
        return embedding


@torch.no_grad()
def _embed(
    tokenizer: Any, model: Any, captions: list[str], encoder: TextEncoder, device: torch.device | str
) -> list[torch.Tensor]:
    """One (length, D) tensor for each caption, on the CPU."""
    encoded = tokenizer(
        captions,
        # Fixed length, as video models were trained with: embeddings then do not depend on the batch.
        padding="max_length",
        truncation=True,
        max_length=encoder.max_tokens,
        return_tensors="pt",
    )
    mask = encoded["attention_mask"]
    output = model(input_ids=encoded["input_ids"].to(device), attention_mask=mask.to(device))
    hidden = output.last_hidden_state.cpu()
    return [embedding[keep.bool()].clone() for embedding, keep in zip(hidden, mask, strict=True)]


def _load(encoder: TextEncoder) -> tuple[Any, Any]:
    folder = Path(encoder.path)
    shown = printable(folder)
    if not (folder / "config.json").is_file():
        raise VdsgenError(
            f"data.text_encoder.path: {shown} has no config.json",
            remedy="name a local folder that a transformers text encoder and its tokenizer were saved to",
        )
    try:
        import transformers
    except ImportError as error:
        raise VdsgenError(
            "a text encoder needs the package transformers", remedy="pip install 'vdsgen[pretrained]'"
        ) from error
    # Nothing from the network, no pickles, no code from the folder.
    manners: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False}
    try:
        model_type = json.loads((folder / "config.json").read_text(encoding="utf-8")).get("model_type", "")
        model_class = getattr(transformers, _ENCODER_CLASSES.get(model_type, "AutoModel"))
        tokenizer = transformers.AutoTokenizer.from_pretrained(str(folder), **manners)
        if model_class is not transformers.AutoModel:
            manners.pop("trust_remote_code")  # only the Auto classes could run such code
        variant = variant_of(folder, TRANSFORMERS)
        model = model_class.from_pretrained(str(folder), use_safetensors=True, variant=variant, **manners)
    except (OSError, ValueError, KeyError, AttributeError, ImportError, RuntimeError) as error:
        raise VdsgenError(
            f"data.text_encoder.path: {shown} cannot be loaded: {_first_line(error)}",
            remedy="it must hold config.json, safetensors weights and a tokenizer that transformers knows "
            "by itself",
        ) from error
    positions = getattr(model.config, "max_position_embeddings", None)
    if positions is not None and encoder.max_tokens > positions:
        raise VdsgenError(
            f"data.text_encoder.max_tokens is {encoder.max_tokens}, the encoder in {shown} has positions "
            f"for {positions}",
            remedy=f"set data.text_encoder.max_tokens to {positions} at most",
        )
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer, model.eval().requires_grad_(False)


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
