"""Rules on sizes that load and hurt: buckets beside the model and the GPU, ZeRO on small models."""

from __future__ import annotations

from vdsgen.rules.facts import Facts
from vdsgen.rules.rule import Change, Rule
from vdsgen.units import GIB

SECTION = "/zero_optimization"
REDUCE = f"{SECTION}/reduce_bucket_size"
GATHER = f"{SECTION}/allgather_bucket_size"
LIVE = f"{SECTION}/stage3_max_live_parameters"
STAGE = f"{SECTION}/stage"

MOST_OF_A_GPU = 0.1
"""Share of a GPU's memory that buckets may take. A choice of this project."""
SMALL_SHARE = 0.25
"""A model whose states take at most this share of a GPU is small. A choice of this project."""
STATE_BYTES = 16
"""A parameter's, with Adam and mixed precision: 2 + 2 + 12 (arXiv 1910.02054, section 3.1)."""


def _buckets(facts: Facts) -> tuple[int, int]:
    """Elements of the reduce buckets that are held at once, and bytes of one element."""
    zero = facts.zero
    if not facts.zero_stage or zero.reduce_bucket_elements is None or facts.uses_bf16_optimizer is not False:
        return 0, 0
    if zero.contiguous_gradients is False and facts.zero_stage != 3:
        return 0, 0
    buffers = 2 if zero.overlap_comm else 1
    return zero.reduce_bucket_elements * buffers, 4 if facts.dtype == "fp32" else 2


def _bucket_within_gpu(facts: Facts) -> str | None:
    elements, width = _buckets(facts)
    memory = facts.machine.gpu_memory_bytes
    if not elements or memory is None or elements * width <= MOST_OF_A_GPU * memory:
        return None
    twice = " twice" if facts.zero.overlap_comm else ""
    return (
        f"reduce_bucket_size {facts.zero.reduce_bucket_elements}{twice} is {elements * width / GIB:.1f} GiB, "
        f"{elements * width / memory:.0%} of a GPU's {memory / GIB:.0f} GiB"
    )


def _bucket_within_model(facts: Facts) -> str | None:
    elements, _ = _buckets(facts)
    size, model = facts.zero.reduce_bucket_elements, facts.model.trainable_parameters
    if not elements or size is None or model is None or size <= model + model % 2:
        return None
    return f"reduce_bucket_size is {size}, the model has {model} trainable parameters"


def _gather_within_model(facts: Facts) -> str | None:
    size, model = facts.zero.allgather_bucket_elements, facts.model.trainable_parameters
    if size is None or model is None or facts.zero_stage not in (1, 2) or size <= model + model % 2:
        return None
    return f"allgather_bucket_size is {size}, the model has {model} trainable parameters"


def _even(elements: int) -> int:
    return elements + elements % 2


def _fit_reduce(facts: Facts) -> tuple[Change, ...]:
    model = facts.model.trainable_parameters
    return () if model is None else ((REDUCE, _even(model)),)


def _fit_gather(facts: Facts) -> tuple[Change, ...]:
    model = facts.model.trainable_parameters
    return () if model is None else ((GATHER, _even(model)),)


def _releases_parameters(facts: Facts) -> str | None:
    live, model = facts.zero.max_live_parameters, facts.model.parameters
    if facts.zero_stage != 3 or live is None or model is None or live < model:
        return None
    return f"stage3_max_live_parameters is {live}, the model has {model}: all of it may be gathered at once"


def _partitions_something(facts: Facts) -> str | None:
    parameters, memory = facts.model.parameters, facts.machine.gpu_memory_bytes
    if facts.zero_stage != 3 or parameters is None or memory is None:
        return None
    if facts.offload.optimizer in ("cpu", "nvme") or facts.offload.parameters in ("cpu", "nvme"):
        return None
    states = parameters * STATE_BYTES
    if states > SMALL_SHARE * memory:
        return None
    return (
        f"ZeRO stage 3 for {parameters} parameters, whose states are {states / GIB:.1f} GiB of a GPU's "
        f"{memory / GIB:.0f}"
    )


def _has_ranks_to_share(facts: Facts) -> str | None:
    if not facts.zero_stage or facts.data_parallel_size != 1 or (facts.sequence_parallel_size or 1) > 1:
        return None
    if facts.offload.optimizer != "none" or facts.dtype is None:
        return None
    if facts.gradient_accumulation_dtype != facts.dtype:
        return None  # only ZeRO accumulates in another dtype
    return f"ZeRO stage {facts.zero_stage} on 1 data-parallel rank"


RULES = (
    Rule(
        id="reduce-bucket-gpu",
        summary="Reduce buckets take a tenth of a GPU at most; overlap_comm doubles them.",
        check=_bucket_within_gpu,
        remedy="use a reduce_bucket_size of 50,000,000",
        source="runtime/zero/stage_1_and_2.py:966",
        severity="hurts",
        keys=(REDUCE, f"{SECTION}/overlap_comm"),
        fix=lambda facts: ((REDUCE, 50_000_000),),  # noqa: ARG005
        needs=("zero", "machine"),
    ),
    Rule(
        id="reduce-bucket-model",
        summary="A reduce bucket is not larger than the model: it is allocated in full.",
        check=_bucket_within_model,
        remedy="use the number of trainable parameters or less",
        source="runtime/zero/stage_1_and_2.py:966",
        severity="hurts",
        keys=(REDUCE,),
        fix=_fit_reduce,
        needs=("zero", "model"),
    ),
    Rule(
        id="allgather-bucket-model",
        summary="A gather bucket is not larger than the model: nothing is gathered in pieces then.",
        check=_gather_within_model,
        remedy="use the number of trainable parameters or less",
        source="runtime/utils.py:1033",
        severity="hurts",
        keys=(GATHER,),
        fix=_fit_gather,
        needs=("zero", "model"),
    ),
    Rule(
        id="zero-3-releases",
        summary="Stage 3 keeps fewer parameters gathered than the model has, or it saves nothing in a step.",
        check=_releases_parameters,
        remedy="set stage3_max_live_parameters and stage3_max_reuse_distance to a few blocks' parameters",
        source="runtime/zero/partitioned_param_coordinator.py:453",
        severity="hurts",
        keys=(LIVE, f"{SECTION}/stage3_max_reuse_distance"),
        needs=("zero", "model"),
    ),
    Rule(
        id="zero-3-small-model",
        summary="A model whose states fit a GPU with room to spare is faster at stage 1 or 2.",
        check=_partitions_something,
        remedy="use ZeRO stage 1 or 2",
        source="runtime/zero/partitioned_param_coordinator.py:310",
        severity="hurts",
        keys=(STAGE,),
        fix=lambda facts: ((STAGE, 2),),  # noqa: ARG005
        needs=("model", "machine"),
    ),
    Rule(
        id="zero-ranks",
        summary="ZeRO shares states between data-parallel ranks: one rank shares nothing.",
        check=_has_ranks_to_share,
        remedy="use ZeRO stage 0 on one data-parallel rank, or offload the optimizer",
        source="runtime/zero/stage_1_and_2.py:294",
        severity="hurts",
        keys=(STAGE,),
        fix=lambda facts: ((STAGE, 0),),  # noqa: ARG005
        needs=("offload",),
    ),
)
