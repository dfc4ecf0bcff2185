"""Sizes of Adam's moments in 8 bits (arXiv 2110.02861), which the trainer and the cost functions share."""

from __future__ import annotations

BLOCK_ELEMENTS = 256
"""Elements that share one fp32 scale: 1.6 % on top of one byte each."""
SCALE_BYTES = 4
PIECE_ELEMENTS = 2**22
"""Elements that are stepped at a time: bounds what is in fp32 meanwhile."""
WORK_BYTES = 40
"""An element of the piece that is stepped, at most: both moments and the denominator in fp32, then of one
moment the quotient and its code's number as int64, the values next to it in the table, and its code."""
SMALLEST_ELEMENTS = 4096
"""Tensors with fewer elements keep their moments in fp32, as in bitsandbytes."""


def moment_bytes(elements: int) -> int:
    """Of both moments of one tensor."""
    if elements < SMALLEST_ELEMENTS:
        return 8 * elements
    return 2 * (elements + SCALE_BYTES * -(-elements // BLOCK_ELEMENTS))
