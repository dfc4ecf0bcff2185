"""The catalogue's data files, read when first asked for."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import TypeVar

from pydantic import TypeAdapter

from vdsgen.catalog.entries import CatalogGpu, CatalogLink, CatalogModel
from vdsgen.spec.pretrained import PretrainedModel

# Not importlib.resources: it costs every command some milliseconds, and packages are unpacked anyway.
FOLDER = Path(__file__).parent / "data"

Entry = TypeVar("Entry")


@cache
def gpus() -> dict[str, CatalogGpu]:
    """Name -> GPU, in the order of the file."""
    return _read("gpus.json", CatalogGpu)


@cache
def links() -> dict[str, CatalogLink]:
    """Name -> link, in the order of the file."""
    return _read("links.json", CatalogLink)


@cache
def models() -> dict[str, CatalogModel]:
    """Name -> model, smallest first; each model's sizes carry its name."""
    entries = json.loads(_content("models.json"))
    for name, entry in entries.items():
        entry["sizes"]["name"] = name
    return TypeAdapter(dict[str, CatalogModel]).validate_json(json.dumps(entries))


@cache
def pretrained() -> dict[str, PretrainedModel]:
    """Name -> model of another library, whose layers are traced but not yet trained."""
    return _read("pretrained.json", PretrainedModel)


def _read(file: str, kind: type[Entry]) -> dict[str, Entry]:
    return TypeAdapter(dict[str, kind]).validate_json(_content(file))  # type: ignore[valid-type]


def _content(file: str) -> bytes:
    return (FOLDER / file).read_bytes()
