"""What reduced and compressed communication adds to a stage's model states.

Files and lines are of DeepSpeed 0.19.8, below deepspeed/runtime. Legend as in model_states.py: w bytes of the
model's element, a of the accumulation's, c of what gradients travel in.
"""

from __future__ import annotations

from vdsgen.cost import engine_defaults as defaults
from vdsgen.cost.engine_optimizer import EngineOptimizer
from vdsgen.cost.settings import BYTES_PER_ELEMENT, Settings
from vdsgen.cost.stage_sizes import StageSizes
from vdsgen.cost.state_bytes import ModelStates
from vdsgen.spec.compression import BLOCK_ELEMENTS, ERROR_BYTES, PIECE_ELEMENTS, SCALE_BYTES
from vdsgen.spec.dtypes import Dtype

WORK_BYTES = 4 + 4 + 1 + SCALE_BYTES / BLOCK_ELEMENTS
"""An element of the piece that is exchanged: its fp32 copy, its quotient and its code, all at once
(model/compression.py, quantise)."""


def with_communication(
    states: ModelStates, sizes: StageSizes, settings: Settings, optimizer: EngineOptimizer
) -> ModelStates:
    """The states of an engine that sends what these settings say; as they are where it sends what it does by
    itself."""
    if settings.sequence_data_parallel_size == 1:
        return states
    if settings.zero_stage == 3:
        states = _zero_plus_plus(states, sizes, settings)
    if settings.gradient_compression != "none":
        return _compressed(states, sizes, settings, optimizer)
    return _cast(states, sizes, settings, optimizer)


def _reduced_elements(sizes: StageSizes, settings: Settings, optimizer: EngineOptimizer) -> int:
    """Of the largest bucket: without ZeRO's buckets, one that closes after the gradient that fills it
    (engine.py:3835), or BF16_Optimizer's flat gradients as a whole (bf16_optimizer.py:191)."""
    t, m = sizes.trainable_parameters, sizes.largest_parameter
    match optimizer:
        case "BF16_Optimizer":
            return _rounded_up(t, 2 * settings.sequence_data_parallel_size)
        case "AdamW" | "FP16_UnfusedOptimizer":
            return min(t, defaults.ALLREDUCE_BUCKET_ELEMENTS + m)
        case _:
            return min(t, max(settings.reduce_bucket_elements, m))


def _compressed(
    states: ModelStates, sizes: StageSizes, settings: Settings, optimizer: EngineOptimizer
) -> ModelStates:
    """int8: errors are a state like moments, of all gradients and of this rank's chunk; one piece at a time
    is worked on. Gradients are never cast to what they would have travelled in."""
    t, d = sizes.trainable_parameters, settings.sequence_data_parallel_size
    bucket = _reduced_elements(sizes, settings, optimizer)
    whole = bucket if optimizer == "BF16_Optimizer" else t
    errors = ERROR_BYTES * (whole + _rounded_up(-(-whole // d), BLOCK_ELEMENTS))
    piece = _rounded_up(min(bucket, PIECE_ELEMENTS), d * BLOCK_ELEMENTS)
    cast = _cast_bytes(settings, settings.dtype) * bucket
    return states._replace(
        optimizer_bytes=states.optimizer_bytes + errors,
        reduction_bytes=states.reduction_bytes - cast + round(WORK_BYTES * piece),
    )


def _cast(
    states: ModelStates, sizes: StageSizes, settings: Settings, optimizer: EngineOptimizer
) -> ModelStates:
    """`communication_data_type`: a bucket is cast as a whole where it travels in another dtype than it is in
    (engine.py:3803, zero/stage_1_and_2.py:2376, zero/stage3.py:1920)."""
    dtype = settings.communication_dtype
    if dtype is None or dtype == settings.dtype:
        return states
    bucket = _reduced_elements(sizes, settings, optimizer)
    if settings.zero_stage >= 2:
        # The bucket itself is of the dtype that travels (zero/stage_1_and_2.py:3266, zero/stage3.py:1070).
        travels = BYTES_PER_ELEMENT[dtype]
        wider = (travels - settings.element_bytes) * settings.reduce_bucket_elements
        return states._replace(
            communication_bytes=states.communication_bytes + wider,
            reduction_bytes=states.reduction_bytes + wider + travels * bucket,
        )
    change = _cast_bytes(settings, dtype) - _cast_bytes(settings, settings.dtype)
    return states._replace(reduction_bytes=states.reduction_bytes + change * bucket)


def _cast_bytes(settings: Settings, dtype: Dtype) -> int:
    """Of an element of the bucket's copy in the dtype it travels in; none where it is in that already."""
    return 0 if dtype == settings.gradient_accumulation_dtype else BYTES_PER_ELEMENT[dtype]


def _zero_plus_plus(states: ModelStates, sizes: StageSizes, settings: Settings) -> ModelStates:
    """hpZ: a share of every gathered parameter among the ranks of the second copy, beside the share among all
    (zero/partition_parameters.py:1912). Quantised weights: what is gathered ahead comes as int8, and is then
    there as fp16 beside it (:1485, :772). Quantised gradients: codes of one gradient, twice
    (comm/coalesced_collectives.py:60)."""
    w, d = settings.element_bytes, settings.sequence_data_parallel_size
    found = states
    if settings.hierarchical_partition_size > 1:
        ranks = settings.hierarchical_partition_size
        threshold = defaults.STAGE3_PARAM_PERSISTENCE_THRESHOLD
        gathered = [(size, count) for size, count in sizes.counts if size > threshold]
        copy = sum(_rounded_up(size, d) // ranks * count for size, count in gathered)
        copy += -(-(sizes.parameters - sizes.trainable_parameters) // ranks)
        found = found._replace(parameters_bytes=found.parameters_bytes + w * copy)
    if settings.zero_quantized_weights:
        ahead = min(sizes.parameters, defaults.STAGE3_PREFETCH_BUCKET_ELEMENTS)
        more = max(0, 1 + 2 - w) * ahead
        found = found._replace(communication_bytes=found.communication_bytes + more)
    if settings.zero_quantized_gradients:
        codes = sizes.largest_parameter
        found = found._replace(
            communication_bytes=found.communication_bytes + codes,
            reduction_bytes=found.reduction_bytes + codes,
        )
    return found


def _rounded_up(elements: int, multiple: int) -> int:
    return -(-elements // multiple) * multiple
