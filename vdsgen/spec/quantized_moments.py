"""Sizes of Adam's moments in 8 bits (arXiv 2110.02861), which the trainer and the cost functions share."""

from __future__ import annotations

BLOCK_ELEMENTS = 256
"""Elements that share one fp32 scale: 1.6 % on top of one byte each."""
SCALE_BYTES = 4
PIECE_ELEMENTS = 2**22
"""Elements that are stepped at a time: bounds what is in fp32 meanwhile."""
WORK_BYTES, PADDED_WORK_BYTES = 21, 25
"""An element of the piece that is stepped, at its peak: both moments in fp32, and of the one that is
quantised the quotients, their codes as int32, the boundaries above them, and which are beyond those; a
copy besides where the last block is filled up."""
SMALLEST_ELEMENTS = 4096
"""Tensors with fewer elements keep their moments in fp32, as in bitsandbytes."""


def moment_bytes(elements: int) -> int:
    """Of both moments of one tensor."""
    if elements < SMALLEST_ELEMENTS:
        return 8 * elements
    return 2 * (elements + SCALE_BYTES * -(-elements // BLOCK_ELEMENTS))


def work_bytes(elements: int) -> int:
    """What stepping one tensor holds besides its states, at its peak."""
    if elements < SMALLEST_ELEMENTS:
        return 4 * elements  # the denominator
    whole = min(elements, PIECE_ELEMENTS)
    rest = elements % PIECE_ELEMENTS
    padded = PADDED_WORK_BYTES * rest if rest % BLOCK_ELEMENTS else 0
    return max(WORK_BYTES * whole, padded)
