"""States of the optimizers that flatten a stage's parameters and share them out as one: BF16_Optimizer, and
ZeRO-1 and 2.

Files and lines are of DeepSpeed 0.19.8, below deepspeed/runtime. Legend as in model_states.py.
"""

from __future__ import annotations

from vdsgen.cost import engine_defaults as defaults
from vdsgen.cost.host_memory import MASTER_AND_MOMENTS, host_bytes_of_zero_1_and_2
from vdsgen.cost.reduction import NORM_ELEMENT_BYTES, momentary_bytes
from vdsgen.cost.settings import BYTES_PER_ELEMENT, Settings
from vdsgen.cost.stage_sizes import StageSizes
from vdsgen.cost.state_bytes import ModelStates


def bf16_optimizer(sizes: StageSizes, settings: Settings) -> ModelStates:
    """bf16 in a pipeline without ZeRO, and bf16 with fp32 accumulation at stage 1: BF16_Optimizer.

    Both share master weights and moments between data-parallel ranks, of flat parameters padded to 2 d
    (bf16_optimizer.py:167, 182). Gradients accumulate in one flat buffer for the whole stage, not shared
    (:191). Reduction copies it to the communication dtype, which is bf16 (engine.py:3801); the step makes
    fp32 gradients of this rank's share where accumulation was in bf16 (:417), after norms that cast one
    gradient at a time (utils.py:950).
    """
    d = settings.sequence_data_parallel_size
    t, m = sizes.trainable_parameters, sizes.largest_parameter
    padded = _rounded_up(t, 2 * d)
    share = padded // d
    a = BYTES_PER_ELEMENT[settings.gradient_accumulation_dtype]
    converts = a == 4
    # Half precision gradients live until the step unless each is accumulated at once (:715).
    kept = 0 if defaults.BF16_IMMEDIATE_GRADIENT_UPDATE else 2 * t
    reduction = 2 * padded if converts else 0
    step = 0 if converts else max(4 * share, 4 * m)
    return ModelStates(
        parameters_bytes=2 * (padded + sizes.parameters - t),
        gradients_bytes=a * padded + kept,
        optimizer_bytes=MASTER_AND_MOMENTS * share,
        communication_bytes=0,
        reduction_bytes=reduction,
        step_bytes=step,
    )


def zero_1(sizes: StageSizes, settings: Settings) -> ModelStates:
    """Stage 1: DeepSpeedZeroOptimizer; all gradients until the step, then this rank's share.

    Flat parameters padded to 2 d (zero/stage_1_and_2.py:446), an fp32 master copy of the share even of an
    fp32 model (:560). The step holds the share's gradients, a flat copy of them and its fp32 copy
    (:3117-3118): up to 8 bytes for each of P. Reduction flattens a bucket at a time (:2367), and forgets
    other ranks' gradients.
    fp16 with fp32 accumulation keeps the sums in `grad_accum` (:1237) and a second, flat copy of the
    share (:1268) while it reduces and steps, and reduction casts the bucket's copy (:2376).
    """
    d, w = settings.sequence_data_parallel_size, settings.element_bytes
    t, m = sizes.trainable_parameters, sizes.largest_parameter
    padded = _rounded_up(t, 2 * d)
    share = padded // d
    a = BYTES_PER_ELEMENT[settings.gradient_accumulation_dtype]
    gradients = a * t
    bucket = min(t, max(settings.reduce_bucket_elements, m))
    if a == w:
        own = min(t, share + sizes.straddling_elements)
        step = w * own + w * share + (4 * share if w == 2 else 0) - gradients
        reduce = w * bucket
    else:
        step = 4 * share + NORM_ELEMENT_BYTES * m
        reduce = 4 * share + (a + w) * bucket
    return ModelStates(
        parameters_bytes=w * (padded + sizes.parameters - t),
        gradients_bytes=gradients,
        optimizer_bytes=MASTER_AND_MOMENTS * share,
        communication_bytes=0,
        reduction_bytes=reduce,
        step_bytes=max(0, step),
    )


def zero_2(sizes: StageSizes, settings: Settings) -> ModelStates:
    """Stage 2: DeepSpeedZeroOptimizer; each micro-batch's gradients are reduced as they come, and only
    this rank's share is kept.

    The bucket of R elements is there from a micro-batch's first gradient to its last
    (zero/stage_1_and_2.py:3266). Accumulating in the model's dtype, a micro-batch's share gets a buffer of
    its own (:2192), which is added to the one before (:1045): two where there is more than one micro-batch.
    Accumulating in fp32 there is one flat fp32 share (:1268), to which slices are cast and added (:1324).
    """
    d, w = settings.sequence_data_parallel_size, settings.element_bytes
    t, m = sizes.trainable_parameters, sizes.largest_parameter
    padded = _rounded_up(t, 2 * d)
    share = padded // d
    bucket = settings.reduce_bucket_elements
    a = BYTES_PER_ELEMENT[settings.gradient_accumulation_dtype]
    own = min(t, share + sizes.straddling_elements) if d > 1 else t
    if a == w:
        gradients = w * own * (2 if settings.gradient_accumulation_steps > 1 else 1)
        step = w * own + w * share + (4 * share if w == 2 else 0) - gradients
        step = max(step, NORM_ELEMENT_BYTES * m + w * own - gradients)
    else:
        gradients = a * share
        step = NORM_ELEMENT_BYTES * m
    return ModelStates(
        parameters_bytes=w * (padded + sizes.parameters - t),
        gradients_bytes=gradients,
        optimizer_bytes=MASTER_AND_MOMENTS * share,
        communication_bytes=w * bucket,
        reduction_bytes=w * bucket + momentary_bytes(settings, m, t),
        step_bytes=max(0, step),
    )


def zero_1_and_2_offloaded(sizes: StageSizes, settings: Settings) -> ModelStates:
    """Stages 1 and 2 with the optimizer on the host: DeepSpeedZeroOptimizer's `cpu_offload`.

    Gradients go through the contiguous bucket at stage 1 too (zero/stage_1_and_2.py:300), which is held from
    the first backward on, in the accumulation's dtype (:3266); a pipeline's reduction adds another (:963). A
    buffer of the largest parameter is held for good (:659). Each gradient of the share, once reduced, is cast
    to fp64 for its norm (:1889) and to fp32 for its way to the host (:1900).

    Stage 1 keeps all gradients on the device until the step. Stage 2 keeps none in the model's dtype: between
    micro-batches whole gradients of the share's parameters wait on the host (:1825). Sums in fp32 stay on
    the device at both (:1268, :2145).
    """
    d, w, stage = settings.sequence_data_parallel_size, settings.element_bytes, settings.zero_stage
    t, m = sizes.trainable_parameters, sizes.largest_parameter
    padded = _rounded_up(t, 2 * d)
    share = padded // d
    a = BYTES_PER_ELEMENT[settings.gradient_accumulation_dtype]
    mixed = a != w
    returned = w * m
    bucket = (a if stage == 1 else w) * settings.reduce_bucket_elements
    kept = 0
    sums = a * share if mixed else 0
    if stage == 1:
        gradients = a * t
        # What goes into the bucket is freed, and makes room for the copy or for the cast.
        reduce = max(0, NORM_ELEMENT_BYTES * m - bucket)
        if mixed:
            reduce = max(reduce, w * settings.reduce_bucket_elements) + sums
        if settings.pipeline_parallel_size > 1:
            reduce += w * settings.reduce_bucket_elements
    else:
        gradients = sums
        if not mixed and settings.gradient_accumulation_steps > 1:
            kept = min(t, share + sizes.straddling_elements) if d > 1 else t
        reduce = momentary_bytes(settings, m, t)  # the last bucket is reduced after backward
    return ModelStates(
        parameters_bytes=w * (padded + sizes.parameters - t),
        gradients_bytes=gradients,
        optimizer_bytes=0,
        communication_bytes=bucket + returned,
        reduction_bytes=bucket + returned + reduce,
        step_bytes=max(0, returned + sums - gradients),
        host_bytes=host_bytes_of_zero_1_and_2(share, m, w, kept),
    )


def _rounded_up(elements: int, multiple: int) -> int:
    return -(-elements // multiple) * multiple
