"""What a GPU's name says, however a driver, a cluster or a vendor writes it."""

from __future__ import annotations

import re
from dataclasses import dataclass

NOISE = frozenset({"nvidia", "amd", "tesla", "instinct", "geforce", "generation", "graphics", "gpu"})
"""Words that tell no product from another; some drivers and clusters leave them out."""


@dataclass(frozen=True, slots=True)
class NameParts:
    """What a name says."""

    model: frozenset[str]
    form: str | None
    """`sxm`, `pcie`, `nvl`; None: it does not say."""
    memory_gb: int | None


def parts_of(name: str) -> NameParts:
    """`NVIDIA A100-SXM4-80GB`: a100, sxm, 80."""
    # What stands in brackets explains: `(one of its four GPUs)`.
    words = re.split(r"[\s_/-]+", re.sub(r"\(.*?\)", "", name).strip().lower())
    model, form, memory_gb = set(), None, None
    for word in words:
        if re.fullmatch(r"(sxm|hbm)\d*e?", word):
            form = "sxm"  # drivers write H100 80GB HBM3 for the SXM module; its PCIe card says PCIe
        elif word in ("pcie", "nvl"):
            form = word
        elif found := re.fullmatch(r"(\d+)g(i?)b", word):
            memory_gb = int(found.group(1))
        elif word and word not in NOISE:
            model.add(word)
    return NameParts(frozenset(model), form, memory_gb)


def same_product(product: str, name: str) -> bool:
    """Whether a driver's name means a product of the catalogue: `Tesla V100-SXM2-16GB` is a `V100 SXM2 16GB`.

    The model's words are the same, and so is the form where both say it; memory is not compared. A name
    without a figure in it says nothing, and is taken for any product.
    """
    ours, theirs = parts_of(product), parts_of(name)
    if not any(character.isdecimal() for word in theirs.model for character in word):
        return True
    return ours.model == theirs.model and (None in (ours.form, theirs.form) or ours.form == theirs.form)
