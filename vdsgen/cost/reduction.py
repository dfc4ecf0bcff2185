"""What accumulating and reducing gradients holds for a moment in backward.

Files and lines are of DeepSpeed 0.19.8, below deepspeed/runtime.
"""

from __future__ import annotations

from vdsgen.cost.settings import BYTES_PER_ELEMENT, Settings

NORM_ELEMENT_BYTES = 8
"""Gradients are cast to fp64, one at a time, for their norm (zero/utils.py:59)."""


def momentary_bytes(settings: Settings, largest: int, trainable: int) -> int:
    """What accumulating or reducing gradients holds for a moment in backward, while some layer's gradients
    come whose largest parameter has `largest` elements, of a stage with `trainable` ones.

    It is there when the layer's own temporaries are not. A gradient's copy in the accumulation's dtype
    (bf16_optimizer.py:715, zero/stage_1_and_2.py:1237, :1324). A flat copy of the bucket that is reduced:
    at ZeRO-2 where sums are in another dtype, since else one slice of the bucket goes to each rank as it
    is (:1671, :2367); at ZeRO-3 always (runtime/comm/coalesced_collectives.py:122), and cast as a whole
    (zero/stage3.py:1944).
    With the optimizer on the host, a gradient cast for its norm (zero/stage_1_and_2.py:1889), and at ZeRO-3
    fetched from there first (zero/stage3.py:2029, :1450).
    """
    stage, w = settings.zero_stage, settings.element_bytes
    a = BYTES_PER_ELEMENT[settings.gradient_accumulation_dtype]
    cast = 0 if a == w else a
    if stage < 2:
        return cast * largest
    bucket = min(trainable, max(settings.reduce_bucket_elements, largest))
    offloaded = settings.offload_optimizer != "none"
    if stage == 2:
        reduced = w * bucket + cast * largest if cast else 0
        return max(reduced, NORM_ELEMENT_BYTES * largest if offloaded else 0)
    d = settings.sequence_data_parallel_size
    fetched = (a + NORM_ELEMENT_BYTES) * -(-largest // d) if offloaded else 0
    if not cast:
        return w * bucket + fetched
    own = cast * -(-bucket // d)  # the flat copy goes when this is there
    return own + max(w * bucket, fetched)
