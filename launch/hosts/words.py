"""Sizes in words, for people."""

from __future__ import annotations

from collections.abc import Sequence

from vdsgen.units import GIB

MIB, GB = 1024**2, 1e9


def size(number_bytes: float) -> str:
    """`512 MiB`, `14.9 GiB`: three figures or so."""
    if number_bytes >= 100 * GIB:
        return f"{number_bytes / GIB:,.0f} GiB"
    if number_bytes >= GIB:
        return f"{number_bytes / GIB:.1f} GiB"
    return f"{number_bytes / MIB:.0f} MiB" if number_bytes >= 10 * MIB else f"{number_bytes / MIB:.2g} MiB"


def rate(bytes_per_second: float) -> str:
    """`12.5 GB/s`: as links are given in lab files."""
    return f"{bytes_per_second / GB:.3g} GB/s"


def names(several: Sequence[str], most: int = 4) -> str:
    """`a, b, c, d and 3 more`"""
    shown = ", ".join(several[:most])
    return shown if len(several) <= most else f"{shown} and {len(several) - most} more"
