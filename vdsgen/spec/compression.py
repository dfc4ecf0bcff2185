"""Compressed gradients of the trainer's own: what in ds_config.json asks for them, and sizes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, get_args

from vdsgen.errors import VdsgenError
from vdsgen.spec.plan import GradientCompression
from vdsgen.spec.trainer_section import COMPRESSION, SECTION, trainer_section

BLOCK_ELEMENTS = 256
"""Elements that share one fp32 scale: 1.6 % on top of one byte each."""
SCALE_BYTES = 4
PIECE_ELEMENTS = 2**24
"""Elements that are exchanged at a time: bounds the memory that quantising takes, in messages that take a
hundred times their latency."""
ERROR_BYTES = 2
"""An element of what quantising lost, kept in bf16 for the next step."""


def compression_of(ds_config: Mapping[str, Any]) -> GradientCompression:
    """What a ds_config.json asks for.

    Raises VdsgenError where the section is no object, has an unknown key, or asks for what there is not.
    """
    value = trainer_section(ds_config).get(COMPRESSION, "none")
    known = get_args(GradientCompression)
    if value not in known:
        raise VdsgenError(
            f"ds_config.json: {SECTION}.{COMPRESSION} is {value!r}", remedy=f"use one of {', '.join(known)}"
        )
    found: GradientCompression = value
    return found


def refusal(
    compression: GradientCompression, zero_stage: int, *, optimizer_is_offloaded: bool = False
) -> str | None:
    """Why these gradients cannot be compressed; None where they can, or need not be."""
    if compression == "none":
        return None
    if zero_stage >= 2:
        return (
            f"ZeRO-{zero_stage} reduces gradients while backward goes on, after every micro-batch; the "
            f"trainer compresses those that are reduced once a step, at ZeRO-0 and ZeRO-1"
        )
    if optimizer_is_offloaded:
        return "with the optimizer on the host, gradients are reduced on their way there, one by one"
    return None
