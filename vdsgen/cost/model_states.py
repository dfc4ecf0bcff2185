"""Parameters, gradients and optimizer states, as DeepSpeed's own optimizers allocate them.

Which optimizer the engine wraps around torch's AdamW depends on precision, ZeRO stage and pipeline
(runtime/engine.py:2294-2325, 2555-2609, 2633-2795); each has one function here. Files and lines are of
DeepSpeed 0.19.8, below deepspeed/runtime. The settings assumed are those of `engine_defaults.py`.

Legend: n parameters of the stage, t trainable ones, w bytes of the model's element, a bytes of the
accumulation's, d data-parallel size, P = ceil(t / d) elements of one rank's share, R reduce bucket
elements, m elements of the largest parameter.

Not modelled: the few bytes of step counters, losses and norms, and what construction holds for a moment
(flat copies of the parameters), which is less than what the first step needs.
"""

from __future__ import annotations

from collections import Counter
from math import prod
from typing import Literal, NamedTuple

from vdsgen.cost import engine_defaults as defaults
from vdsgen.cost.communication_memory import with_communication
from vdsgen.cost.host_memory import (
    MASTER_AND_MOMENTS,
    host_bytes_of_parameters,
    host_bytes_of_zero_1_and_2,
    host_bytes_of_zero_3,
    nvme_bytes_of_optimizer,
    nvme_bytes_of_parameters,
)
from vdsgen.cost.reduction import NORM_ELEMENT_BYTES, momentary_bytes
from vdsgen.cost.settings import BYTES_PER_ELEMENT, Settings
from vdsgen.spec.profile import ModelProfile

MOMENTS = 8
"""Bytes a parameter: Adam's two fp32 moments (torch.optim.AdamW, fused)."""


class StageSizes(NamedTuple):
    """What the optimizer of one stage is given, in elements."""

    parameters: int
    trainable_parameters: int
    largest_parameter: int
    counts: tuple[tuple[int, int], ...]
    """(elements of a trainable parameter, how many have as many): what ZeRO-3 rounds one by one."""

    @classmethod
    def of(cls, profile: ModelProfile, layers: range) -> StageSizes:
        """The stage that holds these pipeline layers. Frozen parameters are taken to come last."""
        counts: Counter[int] = Counter()
        parameters = trainable = 0
        for name, copies in Counter(profile.layers[index] for index in layers).items():
            layer = profile.layer_types[name]
            parameters += copies * layer.parameters
            trainable += copies * layer.trainable_parameters
            for elements in _trainable_sizes(layer.parameter_shapes, layer.trainable_parameters):
                counts[elements] += copies
        return cls(parameters, trainable, max(counts, default=0), tuple(sorted(counts.items())))

    @property
    def straddling_elements(self) -> int:
        """Of a parameter that lies across the end of a rank's share: expected size, where any element is as
        likely to be the share's last."""
        if not self.trainable_parameters:
            return 0
        squares = sum([count * elements * elements for elements, count in self.counts])
        return squares // self.trainable_parameters


def _trainable_sizes(shapes: tuple[tuple[int, ...], ...], trainable: int) -> list[int]:
    sizes = []
    for shape in shapes:
        if trainable <= 0:
            break
        sizes.append(prod(shape))
        trainable -= sizes[-1]
    return sizes


class ModelStates(NamedTuple):
    """Bytes on each GPU of one stage (of the rank that needs most)."""

    parameters_bytes: int
    """All the time; ZeRO-3: this rank's share, and the small parameters that are never released."""
    gradients_bytes: int
    """At the end of a step's last backward."""
    optimizer_bytes: int
    """Master weights and moments, from the first step on."""
    communication_bytes: int
    """Buckets and gathered parameters while activations are held. `momentary_bytes` comes on top."""
    reduction_bytes: int
    """What reduction after the last backward holds beyond parameters, gradients and optimizer states. No
    activations are alive then."""
    step_bytes: int
    """What the optimizer step holds beyond them, norms and clipping included."""
    host_bytes: int = 0
    """What offload keeps in this rank's host memory: the other figures are the device's."""
    nvme_bytes: int = 0
    """What offload keeps in this rank's files on flash."""

    @property
    def held_bytes(self) -> int:
        return self.parameters_bytes + self.gradients_bytes + self.optimizer_bytes

    @property
    def workspace_bytes(self) -> int:
        """What reduction or the optimizer step needs, whichever needs more."""
        return max(self.reduction_bytes, self.step_bytes)


EngineOptimizer = Literal[
    "AdamW",
    "FP16_UnfusedOptimizer",
    "BF16_Optimizer",
    "DeepSpeedZeroOptimizer",
    "DeepSpeedZeroOptimizer_Stage3",
]
"""Class names of `engine.optimizer`."""


def model_states(sizes: StageSizes, settings: Settings) -> ModelStates:
    """The states of one stage. Raises ValueError for combinations that the engine refuses."""
    optimizer = engine_optimizer(settings)
    return with_communication(_states(sizes, settings, optimizer), sizes, settings, optimizer)


def _states(sizes: StageSizes, settings: Settings, optimizer: EngineOptimizer) -> ModelStates:
    match optimizer:
        case "AdamW":
            return _torch_adamw(sizes)
        case "FP16_UnfusedOptimizer":
            return _unfused_optimizer(sizes)
        case "BF16_Optimizer":
            return _bf16_optimizer(sizes, settings)
        case "DeepSpeedZeroOptimizer":
            if settings.offload_optimizer != "none":
                return _zero_1_and_2_offloaded(sizes, settings)
            return _zero_1(sizes, settings) if settings.zero_stage == 1 else _zero_2(sizes, settings)
        case "DeepSpeedZeroOptimizer_Stage3":
            return _zero_3(sizes, settings)


def engine_optimizer(settings: Settings) -> EngineOptimizer:
    """The engine's choice (engine.py:2294-2325, `_do_optimizer_sanity_check`).

    Raises ValueError where the engine does (NotImplementedError or an assertion there), and where it would
    ignore what is asked: it reads offload of the optimizer from ZeRO-1 on (:2688, :2772), and offload of
    parameters at ZeRO-3 alone (:2773).
    """
    stage, dtype, accumulation = settings.zero_stage, settings.dtype, settings.gradient_accumulation_dtype
    pipelined = settings.pipeline_parallel_size > 1
    if stage >= 2 and pipelined:
        raise ValueError(f"ZeRO-{stage} with a pipeline: refused (pipe/engine.py:76)")
    if settings.offload_optimizer != "none" and stage == 0:
        raise ValueError("offload of the optimizer without ZeRO: refused, it is ignored (engine.py:2688)")
    if settings.offload_parameters != "none" and stage != 3:
        raise ValueError(f"offload of parameters with ZeRO-{stage}: refused, it is ignored (engine.py:2773)")
    if stage == 0 and accumulation != dtype:
        raise ValueError(f"{accumulation} sums of {dtype} gradients without ZeRO: refused (engine.py:2323)")
    if stage == 0 and dtype == "fp32":
        return "AdamW"
    if stage == 0:
        return "BF16_Optimizer" if dtype == "bf16" and pipelined else "FP16_UnfusedOptimizer"
    # NVMe takes the CPU path of ZeRO-1 and 2, but here the engine asks for `cpu` alone (:2306, :1567).
    if stage == 1 and (dtype, accumulation) == ("bf16", "fp32") and settings.offload_optimizer != "cpu":
        return "BF16_Optimizer"
    return "DeepSpeedZeroOptimizer" if stage <= 2 else "DeepSpeedZeroOptimizer_Stage3"


def _torch_adamw(sizes: StageSizes) -> ModelStates:
    """fp32 without ZeRO: torch's AdamW on the model's own parameters (engine.py:2315)."""
    t = sizes.trainable_parameters
    return ModelStates(
        parameters_bytes=4 * sizes.parameters,
        gradients_bytes=4 * t,
        optimizer_bytes=MOMENTS * t,
        communication_bytes=0,
        reduction_bytes=4 * _allreduce_elements(sizes),
        step_bytes=0,
    )


def _unfused_optimizer(sizes: StageSizes) -> ModelStates:
    """Half precision without ZeRO (and, in bf16, without a pipeline): FP16_UnfusedOptimizer, since
    torch's AdamW is not DeepSpeed's FusedAdam (engine.py:2564).

    An fp32 copy of every parameter (fp16/unfused_optimizer.py:78); the step adds an fp32 gradient for
    each, beside the half precision ones (:222): 20 bytes a parameter at its peak.
    """
    t = sizes.trainable_parameters
    return ModelStates(
        parameters_bytes=2 * sizes.parameters,
        gradients_bytes=2 * t,
        optimizer_bytes=MASTER_AND_MOMENTS * t,
        communication_bytes=0,
        reduction_bytes=2 * _allreduce_elements(sizes),
        step_bytes=4 * t,
    )


def _allreduce_elements(sizes: StageSizes) -> int:
    """Elements of the engine's own all-reduce buffer (engine.py:3796, 3828-3839): a copy of a bucket of
    gradients, which closes after the gradient that fills it. Made even where there is nothing to reduce."""
    bucket = defaults.ALLREDUCE_BUCKET_ELEMENTS + sizes.largest_parameter
    return min(sizes.trainable_parameters, bucket)


def _bf16_optimizer(sizes: StageSizes, settings: Settings) -> ModelStates:
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


def _zero_1(sizes: StageSizes, settings: Settings) -> ModelStates:
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


def _zero_2(sizes: StageSizes, settings: Settings) -> ModelStates:
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


def _zero_1_and_2_offloaded(sizes: StageSizes, settings: Settings) -> ModelStates:
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


def _zero_3(sizes: StageSizes, settings: Settings) -> ModelStates:
    """Stage 3: DeepSpeedZeroOptimizer_Stage3; parameters too are shared, each rounded up to d by itself
    (zero/partition_parameters.py:1693).

    Small parameters stay whole besides (zero/parameter_offload.py:317). The accumulation buffer of the
    share is allocated once for all (zero/stage3.py:791), and so is the bucket (:782). An fp32 model has
    a master copy too (:1172). The step flattens the gradients of one sub-group of the share and casts
    them to fp32 (:2686). While computing: gathered parameters, what is gathered ahead as one flat message
    and again as parameters (zero/partition_parameters.py:795), and a flat copy of the bucket
    (runtime/comm/coalesced_collectives.py:122).

    With the optimizer on the host its states and the accumulated gradients are there; a gradient is fetched,
    added to (zero/stage3.py:2033), and cast for its norm (:1450). With parameters on the host, the device
    holds what is gathered, and a copy of the share of what is being gathered
    (zero/partition_parameters.py:1352).
    """
    d, w = settings.sequence_data_parallel_size, settings.element_bytes
    m = sizes.largest_parameter
    share = sum(-(-elements // d) * count for elements, count in sizes.counts)
    threshold = defaults.STAGE3_PARAM_PERSISTENCE_THRESHOLD
    whole = sum(elements * count for elements, count in sizes.counts if elements <= threshold)
    frozen = sizes.parameters - sizes.trainable_parameters
    a = BYTES_PER_ELEMENT[settings.gradient_accumulation_dtype]
    bucket = settings.reduce_bucket_elements
    live = max(defaults.STAGE3_MAX_LIVE_PARAMETERS, defaults.STAGE3_MAX_REUSE_DISTANCE)
    ahead = defaults.STAGE3_PREFETCH_BUCKET_ELEMENTS
    gathered = min(sizes.parameters, live) + min(sizes.parameters, ahead)
    own = share + -(-frozen // d)
    # A sub-group closes after the parameter that fills it.
    stepped = min(share, defaults.STAGE3_SUB_GROUP_ELEMENTS + -(-sizes.straddling_elements // d))
    host = nvme = 0
    if settings.offload_parameters != "none":
        swapped = settings.offload_parameters == "nvme"
        host += host_bytes_of_parameters(own, stepped, w, swapped=swapped)
        nvme += nvme_bytes_of_parameters(own, w) if swapped else 0
        gathered += -(-min(sizes.parameters, ahead) // d)
        own = 0
    elif d == 1:  # the share is the parameter: nothing is gathered
        whole = gathered = 0
    # What is left in the bucket when backward is done; a larger gradient has gone by then, unless it is the
    # very last to come.
    reduce = momentary_bytes(settings, min(m, bucket), sizes.trainable_parameters)
    if settings.offload_optimizer != "none":
        swapped = settings.offload_optimizer == "nvme"
        host += host_bytes_of_zero_3(share, stepped, a, swapped=swapped)
        nvme += nvme_bytes_of_optimizer(share) if swapped else 0
        gradients = optimizer = step = 0
    else:
        gradients, optimizer = a * share, MASTER_AND_MOMENTS * share
        step = (a if a == 4 else a + 4) * stepped
    return ModelStates(
        parameters_bytes=w * (own + whole),
        gradients_bytes=gradients,
        optimizer_bytes=optimizer,
        communication_bytes=w * (bucket + gathered),
        reduction_bytes=w * bucket + reduce,
        step_bytes=w * bucket + step,
        host_bytes=host,
        nvme_bytes=nvme,
    )


def _rounded_up(elements: int, multiple: int) -> int:
    return -(-elements // multiple) * multiple
