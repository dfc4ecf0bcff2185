"""What a sample is conditioned on: nothing, a class, or a caption's embedding."""

from __future__ import annotations

import logging
from collections import defaultdict
from dataclasses import dataclass
from typing import Protocol

import torch

from vdsgen.errors import VdsgenError
from vdsgen.model.data.captions import class_of, label_of
from vdsgen.model.data.index import Index
from vdsgen.model.data.text import CaptionTable, embed_captions
from vdsgen.spec.architecture import Vdt
from vdsgen.spec.data import Data

log = logging.getLogger("vdsgen.data")


class Conditions(Protocol):
    """The condition of each clip of an index."""

    def of(self, position: int, *, dropped: bool = False) -> torch.Tensor | None:
        """() int64 class, (L, D) float32 embedding, or None; of no condition where `dropped`."""
        ...


@dataclass(frozen=True, slots=True)
class NoConditions:
    def of(self, position: int, *, dropped: bool = False) -> None:  # noqa: ARG002
        return None


@dataclass(frozen=True, slots=True)
class ClassConditions:
    """Classes by hash; `empty` is the class that stands for no condition."""

    classes: tuple[int, ...]
    empty: int

    def of(self, position: int, *, dropped: bool = False) -> torch.Tensor:
        return torch.tensor(self.empty if dropped else self.classes[position], dtype=torch.int64)


@dataclass(frozen=True, slots=True)
class TextConditions:
    captions: tuple[str, ...]
    table: CaptionTable

    def of(self, position: int, *, dropped: bool = False) -> torch.Tensor:
        return self.table.padded("" if dropped else self.captions[position])


def conditions_for(index: Index, data: Data, model: Vdt, device: torch.device | str = "cpu") -> Conditions:
    """The conditions that `model` wants for the clips of `index`; text is embedded here, on `device`.

    Raises VdsgenError where data and model do not fit each other.
    """
    if model.condition == "none":
        return NoConditions()
    if model.condition == "class":
        return _classes(index, model.classes)
    if data.text_encoder is None:
        raise no_text_encoder()
    captions = tuple(entry.caption for entry in index.entries)
    table = embed_captions(data.text_encoder, captions, device)
    if table.width != model.text_hidden_size:
        raise VdsgenError(
            f"the text encoder in {data.text_encoder.path} gives embeddings of width {table.width}, "
            f"model.text_hidden_size is {model.text_hidden_size}",
            remedy=f"set model.text_hidden_size to {table.width}",
        )
    _warn_of_missing(captions)
    return TextConditions(captions, table)


def no_text_encoder() -> VdsgenError:
    return VdsgenError(
        "model.condition is text, but data.text_encoder is not set",
        remedy="name a local encoder under data.text_encoder, or set model.condition to class or none",
    )


def _classes(index: Index, classes: int) -> ClassConditions:
    labels = [label_of(entry.path, entry.caption) for entry in index.entries]
    numbers = tuple(class_of(label, classes) for label in labels)
    sharing: dict[int, set[str]] = defaultdict(set)
    for label, number in zip(labels, numbers, strict=True):
        if label is not None:
            sharing[number].add(label)
    crowded = [sorted(names) for _, names in sorted(sharing.items()) if len(names) > 1]
    if crowded:
        log.warning(
            "%d of %d classes stand for several labels (%r and %r, for one): raise model.classes (%d)",
            len(crowded),
            len(sharing),
            crowded[0][0][:60],
            crowded[0][1][:60],
            classes,
        )
    if not sharing:
        log.warning("no clip has a caption or lies in a sub-folder: all are trained without a class")
    return ClassConditions(numbers, classes)


def _warn_of_missing(captions: tuple[str, ...]) -> None:
    missing = sum(not caption for caption in captions)
    if missing:
        log.warning("%d of %d clips have no caption file: theirs is empty", missing, len(captions))
