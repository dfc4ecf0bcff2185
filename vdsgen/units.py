"""Sizes that people read memory in."""

from __future__ import annotations

GIB = 1024**3
"""Bytes; GPU makers' GB of memory, too. Parameters and disks count in GB of 10^9."""
