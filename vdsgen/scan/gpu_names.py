"""A GPU's name, as drivers and SLURM write it, among the catalogue's."""

from __future__ import annotations

import re
from functools import cache
from typing import TypeVar

from vdsgen.catalog.entries import CatalogGpu
from vdsgen.catalog.gpu_names import NameParts, parts_of
from vdsgen.catalog.load import gpus, links
from vdsgen.units import GIB

_T = TypeVar("_T")

MEMORY_TOLERANCE = 0.07
"""Of the catalogue's figure: drivers keep more or less for themselves, and ECC can be off (a sixteenth)."""


@cache
def _catalogue() -> tuple[tuple[str, CatalogGpu, NameParts], ...]:
    """GPUs of the catalogue with a product name; the form is what links say where the name does not."""
    found = []
    for name, gpu in gpus().items():
        if gpu.memory_gib is not None and gpu.vendor != "generic":
            found.append((name, gpu, parts_of(gpu.product)))
    return tuple(found)


def named_by_driver(name: str, memory_bytes: int) -> str | None:
    """The catalogue's name of what a driver names, of this memory; None: it is not in there."""
    said = parts_of(name)
    near = [
        (entry, parts)
        for entry, gpu, parts in _catalogue()
        if parts.model == said.model
        and gpu.memory_gib is not None
        and abs(memory_bytes / GIB / gpu.memory_gib - 1) <= MEMORY_TOLERANCE
    ]
    same = [entry for entry, parts in near if parts.form == said.form]
    if same:
        return same[0]
    if said.form is None:
        # Cards of a product that is a module too say so: `NVIDIA H200` is the module, `H200 NVL` the card.
        modules = [entry for entry, parts in near if parts.form == "sxm"]
        return modules[0] if modules else None
    # One product only, whose name has no form: A30 is never anything else.
    return near[0][0] if len(near) == 1 and near[0][1].form is None else None


def meant_by(gres: str, features: frozenset[str] = frozenset()) -> tuple[str, ...]:
    """What a cluster can mean by the type of a GPU: by rising memory, then speed. Sizes and forms that
    features of its nodes tell count where the type says nothing."""
    said = parts_of(re.sub(r"rtx(?=\d)", "rtx ", gres.lower()))
    hints = [parts_of(feature) for feature in features]
    about = [hint for hint in hints if hint.model <= said.model]
    form = said.form or _single({hint.form for hint in about})
    memory_gb = said.memory_gb or _single({hint.memory_gb for hint in about})
    fits = [
        (entry, gpu)
        for entry, gpu, parts in _catalogue()
        if parts.model - {"rtx"} == said.model - {"rtx"}  # `a6000`, `4090`
        and form in (None, parts.form)
        and (memory_gb is None or parts.memory_gb in (memory_gb, None))
    ]
    rank = {name: link.bandwidth_gb_per_second for name, link in links().items()}
    fits.sort(
        key=lambda fit: (fit[1].memory_gib, fit[1].fp16_tflops or 0, max(map(rank.__getitem__, fit[1].links)))
    )
    return tuple(entry for entry, _ in fits)


def _single(values: set[_T | None]) -> _T | None:
    """The one value that is said, None where none or several are."""
    said = values - {None}
    return said.pop() if len(said) == 1 else None
