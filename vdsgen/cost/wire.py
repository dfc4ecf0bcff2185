"""What an element weighs on its way between data-parallel ranks, and what quantising it costs.

Files and lines are of DeepSpeed 0.19.8, below deepspeed/runtime; docs/communication.md says what the engine
does with each setting, and what was run.
"""

from __future__ import annotations

from vdsgen.cost.settings import BYTES_PER_ELEMENT, Settings
from vdsgen.spec.compression import BLOCK_ELEMENTS, SCALE_BYTES

INT8_BYTES = 1 + SCALE_BYTES / BLOCK_ELEMENTS
"""An int8 gradient of the trainer's own, with its share of a scale."""
QUANTIZED_WEIGHT_BYTES = 1 + 4 / 8000
"""ZeRO++: int8, and an fp32 scale for each group of about 8,000 (zero/partition_parameters.py:859)."""
QUANTIZED_GRADIENT_BYTES = 0.5
"""ZeRO++: int4; its groups are rows of a matrix (comm/coalesced_collectives.py:58), whose scales weigh next
to nothing."""


def gradient_bytes(settings: Settings) -> float:
    """An element of the gradients as it is reduced."""
    if settings.gradient_compression == "int8":
        return INT8_BYTES
    if settings.zero_quantized_gradients:
        return QUANTIZED_GRADIENT_BYTES
    return BYTES_PER_ELEMENT[settings.communication_dtype or settings.dtype]


def parameter_bytes(settings: Settings) -> float:
    """An element of the parameters as ZeRO-3 gathers it."""
    return QUANTIZED_WEIGHT_BYTES if settings.zero_quantized_weights else settings.element_bytes


def reduction_memory_bytes(settings: Settings) -> float:
    """Bytes through this GPU's memory for each element of a reduction, beyond what an exact one moves.

    int8 (model/compression.py, exchange), with d ranks: the fp32 copy (read the gradient and its error, write
    4), norms of blocks (read 4), quotients and their rounding (read and write 4, twice), codes (read 4, write
    1), the loss (read 1 and 4, write 4), its copy (read and write 4, write 2); the received codes' product
    (read 1, write 4) and mean (read 4); all of it again for the mean, a d-th of the elements; and the result
    (read 1, write 4; read 4, write the gradient).
    int4 (csrc/quantization): read 2, write 0.5; what comes is a read and a write of as many codes at each of
    two hops, the second a node's share of the first.
    A cast to `communication_dtype` and back: read and write of both widths.
    """
    accumulated = BYTES_PER_ELEMENT[settings.gradient_accumulation_dtype]
    if settings.gradient_compression == "int8":
        quantising = 4 + 16 + 5 + 9 + 10
        sent = accumulated + 2 + 4 + quantising
        return sent + 9 + (4 + quantising) / settings.sequence_data_parallel_size + 5 + 4 + accumulated
    if settings.zero_quantized_gradients:
        return 2 + 4 * QUANTIZED_GRADIENT_BYTES
    natural, sent_as = settings.element_bytes, gradient_bytes(settings)
    return 0.0 if sent_as == natural else 2 * (natural + sent_as)


def gather_memory_bytes(settings: Settings) -> float:
    """The same for each element that ZeRO-3 gathers quantised: this rank's share is cast to fp16 and
    quantised (zero/partition_parameters.py:893), all that comes is dequantised to fp16 (read 1, write 2) and
    cast to another dtype of the model (read 2, write that; :795)."""
    if not settings.zero_quantized_weights:
        return 0.0
    width = settings.element_bytes
    share = (width + 2 if settings.dtype != "fp16" else 0) + 2 + 1
    return share / settings.sequence_data_parallel_size + 3 + (2 + width if settings.dtype != "fp16" else 0)
