"""Sizes in words, of runs that are small as well."""

from __future__ import annotations

from vdsgen.planner.words import gib
from vdsgen.units import GIB

MIB = 1024**2


def size_words(size_bytes: float) -> str:
    """In MiB where GiB would say little."""
    return gib(size_bytes) if size_bytes >= GIB / 2 else f"{size_bytes / MIB:.1f} MiB"
