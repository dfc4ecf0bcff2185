"""Which file of a folder has the weights that diffusers or transformers saved there.

Both name them STEM.safetensors, or STEM.safetensors.index.json where there are several files. A variant has
its name before the ending (diffusers/utils/hub_utils.py:250, 0.42.1): STEM.fp16.safetensors, or
STEM.safetensors.index.fp16.json.
"""

from __future__ import annotations

import logging
import re
from dataclasses import dataclass
from pathlib import Path

from vdsgen.errors import VdsgenError
from vdsgen.model.console import is_first_rank

DIFFUSERS, TRANSFORMERS = "diffusion_pytorch_model", "model"
"""Stems."""
PREFERRED = ("fp32", "fp16", "bf16")
"""Variants in the order in which they are taken: those that keep more digits of a weight first. Others, such
as weights without averaging (non_ema), come after them by name."""

_logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class WeightFile:
    """Where to begin to read."""

    path: Path
    variant: str | None
    is_index: bool
    """The file names others, which hold the tensors."""


def weight_file(folder: Path, stem: str) -> WeightFile:
    """The whole weights where they are there, else a variant; of several the first in order, which is said.
    Raises VdsgenError where there is neither."""
    whole = _of_variant(folder, stem, None)
    if whole is not None:
        return whole
    found = {name: one for name in _variants(folder, stem) if (one := _of_variant(folder, stem, name))}
    if not found:
        index, single = _name(stem, None, index=True), _name(stem, None, index=False)
        raise VdsgenError(
            f"{folder} holds neither {single} nor {index}, nor a variant of them such as "
            f"{_name(stem, 'fp16', index=False)} or {_name(stem, 'fp16', index=True)}",
            remedy="a folder that diffusers' save_pretrained wrote has one of them",
        )
    taken = next(iter(found))
    if len(found) > 1 and is_first_rank():
        others = ", ".join(name for name in found if name != taken)
        _logger.warning("%s holds variants of the weights: %s is read, not %s", folder, taken, others)
    return found[taken]


def variant_of(folder: Path, stem: str) -> str | None:
    """What the libraries' `from_pretrained` takes as `variant`; None also where there are no weights, which
    the libraries say in their own words."""
    try:
        return weight_file(folder, stem).variant
    except VdsgenError:
        return None


def _of_variant(folder: Path, stem: str, variant: str | None) -> WeightFile | None:
    for index in (True, False):
        path = folder / _name(stem, variant, index=index)
        if path.is_file():
            return WeightFile(path, variant, index)
    return None


def _name(stem: str, variant: str | None, *, index: bool) -> str:
    middle = "" if variant is None else f".{variant}"
    return f"{stem}.safetensors.index{middle}.json" if index else f"{stem}{middle}.safetensors"


def _variants(folder: Path, stem: str) -> list[str]:
    """Those that some file is named for. One of several files has its number after a hyphen: none is of a
    variant by itself."""
    pattern = re.compile(rf"{re.escape(stem)}\.(?:safetensors\.index\.(\w+)\.json|(\w+)\.safetensors)")
    names = {
        match[1] or match[2] for path in folder.glob(f"{stem}.*") if (match := pattern.fullmatch(path.name))
    }
    order = {name: place for place, name in enumerate(PREFERRED)}
    return sorted(names, key=lambda name: (order.get(name, len(order)), name))
