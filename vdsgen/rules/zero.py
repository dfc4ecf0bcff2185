"""Rules on the stages of ZeRO and what each of them reads."""

from __future__ import annotations

from vdsgen.rules.facts import Facts
from vdsgen.rules.keys import are, below, present, removal, setting
from vdsgen.rules.rule import REMOVE, Change, Rule

SECTION = "/zero_optimization"
STAGE = f"{SECTION}/stage"
BUCKET = f"{SECTION}/allgather_bucket_size"
NORM = f"{SECTION}/compute_grad_norm"

STAGE_3 = below(
    SECTION,
    "stage3_prefetch_bucket_size prefetch_bucket_size stage3_param_persistence_threshold "
    "param_persistence_threshold stage3_model_persistence_threshold model_persistence_threshold "
    "stage3_max_live_parameters max_live_parameters stage3_max_reuse_distance max_reuse_distance "
    "stage3_gather_16bit_weights_on_model_save gather_16bit_weights_on_model_save "
    "stage3_gather_fp16_weights_on_model_save stage3_module_granularity_threshold "
    "module_granularity_threshold stage3_use_all_reduce_for_fetch_params use_all_reduce_for_fetch_params "
    "stage3_allgather_sequential allgather_sequential sub_group_size memory_efficient_linear "
    "override_module_apply log_trace_cache_warnings save_muon_momentum_buffer_in_memory leaf_module",
)
"""Read by stage 3 (and by zero.Init, which is stage 3's) alone; each by its name and its alias."""
STAGE_1_AND_2 = below(
    SECTION,
    "allgather_bucket_size use_multi_rank_bucket_allreduce round_robin_gradients ignore_unused_parameters "
    "parameter_alignment",
)
"""Not among the arguments of stage 3's optimizer."""
OF_ANY_STAGE = (
    *below(
        SECTION,
        "contiguous_gradients reduce_scatter reduce_bucket_size overlap_comm compute_grad_norm "
        "load_from_fp32_weights elastic_checkpoint",
    ),
    *STAGE_1_AND_2,
)
UNREAD_BY_BF16_OPTIMIZER = below(
    SECTION,
    "reduce_bucket_size reduce_scatter contiguous_gradients overlap_comm use_multi_rank_bucket_allreduce "
    "round_robin_gradients ignore_unused_parameters parameter_alignment",
)
UNREAD = (f"{SECTION}/allgather_partitions", "/disable_allgather")


def _stage_exists(facts: Facts) -> str | None:
    if facts.zero_stage is None or 0 <= facts.zero_stage <= 3:
        return None
    return f"ZeRO stage {facts.zero_stage}"


def _bucket_is_even(facts: Facts) -> str | None:
    elements = facts.zero.allgather_bucket_elements
    if elements is None or elements % 2 == 0 or facts.zero_stage not in (1, 2) or facts.uses_bf16_optimizer:
        return None  # BF16_Optimizer does not look
    return f"allgather_bucket_size is {elements}, an odd number of elements"


def _even_bucket(facts: Facts) -> tuple[Change, ...]:
    return ((BUCKET, (facts.zero.allgather_bucket_elements or 0) + 1),)


def _legacy_stage_1(facts: Facts) -> str | None:
    if not facts.zero.legacy_stage1 or not facts.zero_stage or facts.uses_bf16_optimizer:
        return None
    return "legacy_stage1 is true"


def _norm_needs_stage_1_or_2(facts: Facts) -> str | None:
    if facts.zero.compute_grad_norm is not False or facts.zero_stage in (None, 1, 2):
        return None
    return f"compute_grad_norm is false at ZeRO stage {facts.zero_stage}"


def _skips_norm(facts: Facts) -> bool:
    """Whether one of ZeRO's own optimizers of stage 1 and 2 is told not to compute the norm."""
    return facts.zero.compute_grad_norm is False and facts.zero_stage in (1, 2)


def _norm_for_clipping(facts: Facts) -> str | None:
    clipping = facts.optimizer.gradient_clipping
    if not _skips_norm(facts) or not clipping or facts.uses_bf16_optimizer is not False:
        return None
    return f"compute_grad_norm is false, and gradient_clipping {clipping}"


def _norm_for_zenflow(facts: Facts) -> str | None:
    return "compute_grad_norm is false with ZenFlow" if _skips_norm(facts) and facts.zenflow.present else None


def _norm_for_offload(facts: Facts) -> str | None:
    device = facts.offload.optimizer
    if not _skips_norm(facts) or device in (None, "none") or facts.uses_bf16_optimizer is not False:
        return None
    return f"compute_grad_norm is false with the optimizer offloaded to {device}"


def _norm_for_bf16_optimizer(facts: Facts) -> str | None:
    if not _skips_norm(facts) or not facts.uses_bf16_optimizer:
        return None
    return "compute_grad_norm is false at ZeRO stage 1 with bf16 parameters and fp32 accumulation"


def _elastic_stage_3(facts: Facts) -> str | None:
    if not facts.zero.elastic_checkpoint or facts.zero_stage != 3:
        return None
    return "elastic_checkpoint is true at ZeRO stage 3"


def _loading_in_turn(facts: Facts) -> str | None:
    if not facts.zero.pipeline_loading_checkpoint or facts.zero_stage not in (1, 2):
        return None
    return f"pipeline_loading_checkpoint is true at ZeRO stage {facts.zero_stage}"


def _keys_of_stage_3(facts: Facts) -> str | None:
    found = present(facts, STAGE_3)
    if not found or facts.zero_stage in (None, 3):
        return None
    return f"{are(found)} for stage 3, ZeRO's stage is {facts.zero_stage}"


def _keys_of_stages_1_and_2(facts: Facts) -> str | None:
    found = present(facts, STAGE_1_AND_2)
    return f"{are(found)} for stages 1 and 2, ZeRO's stage is 3" if found and facts.zero_stage == 3 else None


def _keys_without_zero(facts: Facts) -> str | None:
    if facts.zero_stage != 0 or facts.uses_bf16_optimizer is None:
        return None
    found = present(facts, _unread_at_stage_0(facts))
    return f"{are(found)} there, ZeRO's stage is 0" if found else None


def _unread_at_stage_0(facts: Facts) -> tuple[str, ...]:
    """BF16_Optimizer, which a bf16 pipeline has at stage 0, reads the size of its gathers."""
    return tuple(key for key in OF_ANY_STAGE if key != BUCKET or not facts.uses_bf16_optimizer)


def _keys_of_bf16_optimizer(facts: Facts) -> str | None:
    found = present(facts, UNREAD_BY_BF16_OPTIMIZER)
    if not found or facts.zero_stage != 1 or not facts.uses_bf16_optimizer:
        return None
    return f"{are(found)} not read by BF16_Optimizer, which stage 1 has for bf16 with fp32 accumulation"


def _unread_keys(facts: Facts) -> str | None:
    found = present(facts, UNREAD)
    return (
        f"nothing in the engine reads {' and '.join(key[1:].replace('/', '.') for key in found)}"
        if found
        else None
    )


def _contiguous_with_offload(facts: Facts) -> str | None:
    if facts.zero.contiguous_gradients is not False or facts.zero_stage not in (1, 2):
        return None
    if facts.offload.optimizer in (None, "none") or facts.uses_bf16_optimizer is not False:
        return None
    return f"contiguous_gradients is false with the optimizer offloaded to {facts.offload.optimizer}"


def _sequential_prefetch(facts: Facts) -> str | None:
    found = present(facts, STAGE_3[:2])
    if not found or not facts.zero.allgather_sequential or facts.zero_stage != 3:
        return None
    size = facts.zero.prefetch_bucket_elements
    return f"stage3_allgather_sequential with a prefetch bucket of {size}" if size != 1 else None


def _fix_sequential(facts: Facts) -> tuple[Change, ...]:
    return tuple((key, REMOVE) for key in present(facts, STAGE_3[:2]))


RULES = (
    Rule(
        id="zero-stage-exists",
        summary="ZeRO has the stages 0 to 3.",
        check=_stage_exists,
        remedy="use a stage from 0 to 3",
        source="runtime/zero/config.py:95",
        engine_message="Input should be 0, 1, 2, 3",
        keys=(STAGE,),
    ),
    Rule(
        id="allgather-bucket-even",
        summary="allgather_bucket_size is even: buffers are aligned to two elements.",
        check=_bucket_is_even,
        remedy="use an even number of elements",
        source="runtime/zero/stage_1_and_2.py:390",
        engine_message="allgather_bucket_size must be a multiple of nccl_start_alignment_factor",
        keys=(BUCKET,),
        fix=_even_bucket,
        needs=("zero",),
    ),
    Rule(
        id="zero-contiguous-offload",
        summary="Offloading the optimizer of stages 1 and 2 makes gradients contiguous, whatever is set.",
        check=_contiguous_with_offload,
        remedy="set contiguous_gradients to true",
        source="runtime/zero/stage_1_and_2.py:300",
        severity="overridden",
        keys=(f"{SECTION}/contiguous_gradients",),
        fix=setting(f"{SECTION}/contiguous_gradients", True),
        needs=("zero", "offload"),
    ),
    Rule(
        id="zero-legacy-stage-1",
        summary="The first implementation of stage 1 is gone.",
        check=_legacy_stage_1,
        remedy="take legacy_stage1 out",
        source="runtime/engine.py:2650",
        engine_message="The deprecated version of ZeRO Stage 1 is not supported",
        keys=(f"{SECTION}/legacy_stage1",),
        fix=removal(f"{SECTION}/legacy_stage1"),
        needs=("zero",),
    ),
    Rule(
        id="grad-norm-stage",
        summary="compute_grad_norm can be false at stages 1 and 2 only.",
        check=_norm_needs_stage_1_or_2,
        remedy="leave compute_grad_norm at true",
        source="runtime/zero/config.py:392",
        engine_message="compute_grad_norm=false is supported only with ZeRO Stage 1 or 2",
        keys=(NORM,),
        fix=removal(NORM),
        needs=("zero",),
    ),
    Rule(
        id="grad-norm-clipping",
        summary="Clipping needs the gradient norm.",
        check=_norm_for_clipping,
        remedy="leave compute_grad_norm at true, or set gradient_clipping to 0",
        source="runtime/zero/stage_1_and_2.py:213",
        engine_message="compute_grad_norm=false requires gradient_clipping=0",
        keys=(NORM, "/gradient_clipping"),
        fix=removal(NORM),
        needs=("zero", "optimizer"),
    ),
    Rule(
        id="grad-norm-zenflow",
        summary="ZenFlow needs the gradient norm.",
        check=_norm_for_zenflow,
        remedy="leave compute_grad_norm at true",
        source="runtime/zero/stage_1_and_2.py:215",
        engine_message="compute_grad_norm=false does not support ZenFlow",
        keys=(NORM, f"{SECTION}/zenflow"),
        fix=removal(NORM),
        needs=("zero", "zenflow"),
    ),
    Rule(
        id="grad-norm-offload",
        summary="Optimizer offload needs the gradient norm.",
        check=_norm_for_offload,
        remedy="leave compute_grad_norm at true",
        source="runtime/zero/stage_1_and_2.py:218",
        engine_message="compute_grad_norm=false does not support optimizer offload",
        keys=(NORM, f"{SECTION}/offload_optimizer"),
        fix=removal(NORM),
        needs=("zero", "offload"),
    ),
    Rule(
        id="grad-norm-bf16-optimizer",
        summary="BF16_Optimizer always computes the gradient norm.",
        check=_norm_for_bf16_optimizer,
        remedy="leave compute_grad_norm at true",
        source="runtime/engine.py:2307",
        engine_message="compute_grad_norm=false does not support ZeRO Stage 1",
        keys=(NORM,),
        fix=removal(NORM),
        needs=("zero",),
    ),
    Rule(
        id="zero-3-elastic-checkpoint",
        summary="Stage 3 has no elastic checkpoints: the key is not handed to its optimizer.",
        check=_elastic_stage_3,
        remedy="take elastic_checkpoint out; universal checkpoints change the number of ranks",
        source="runtime/zero/config.py:403",
        severity="ignored",
        keys=(f"{SECTION}/elastic_checkpoint",),
        fix=removal(f"{SECTION}/elastic_checkpoint"),
        needs=("zero",),
    ),
    Rule(
        id="zero-loading-in-turn",
        summary="Ranks that load a checkpoint one after another need stage 3: loading raises.",
        check=_loading_in_turn,
        remedy="take pipeline_loading_checkpoint out",
        source="runtime/engine.py:4739",
        engine_message="Only stage3 support for pipeline checkpoint loading",
        keys=(f"{SECTION}/pipeline_loading_checkpoint",),
        fix=removal(f"{SECTION}/pipeline_loading_checkpoint"),
        needs=("zero",),
    ),
    Rule(
        id="zero-stage-3-keys",
        summary="Keys of stage 3 do nothing below it.",
        check=_keys_of_stage_3,
        remedy="take them out, or use stage 3",
        source="runtime/engine.py:2749-2796",
        severity="ignored",
        keys=STAGE_3,
        fix=removal(*STAGE_3),
        needs=("given",),
    ),
    Rule(
        id="zero-stage-1-2-keys",
        summary="Keys of stages 1 and 2 do nothing at stage 3.",
        check=_keys_of_stages_1_and_2,
        remedy="take them out",
        source="runtime/engine.py:2670-2707",
        severity="ignored",
        keys=STAGE_1_AND_2,
        fix=removal(*STAGE_1_AND_2),
        needs=("given",),
    ),
    Rule(
        id="zero-off-keys",
        summary="Without ZeRO its buckets and options do nothing.",
        check=_keys_without_zero,
        remedy="take them out, or use a stage from 1 to 3",
        source="runtime/engine.py:2297-2325",
        severity="ignored",
        keys=OF_ANY_STAGE,
        fix=lambda facts: removal(*_unread_at_stage_0(facts))(facts),
        needs=("given",),
    ),
    Rule(
        id="bf16-optimizer-keys",
        summary=(
            "bf16 with fp32 accumulation at stage 1 is BF16_Optimizer's: of ZeRO's keys it reads "
            "allgather_bucket_size only."
        ),
        check=_keys_of_bf16_optimizer,
        remedy="take them out",
        source="runtime/engine.py:2620-2630",
        severity="ignored",
        keys=UNREAD_BY_BF16_OPTIMIZER,
        fix=removal(*UNREAD_BY_BF16_OPTIMIZER),
        needs=("given",),
    ),
    Rule(
        id="gathering-keys-unread",
        summary="allgather_partitions and disable_allgather are parsed, and nothing reads them.",
        check=_unread_keys,
        remedy="take them out",
        source="runtime/engine.py:1745",
        severity="ignored",
        keys=UNREAD,
        fix=removal(*UNREAD),
        needs=("given",),
    ),
    Rule(
        id="zero-sequential-prefetch",
        summary="Gathering parameter by parameter sets the prefetch bucket to 1.",
        check=_sequential_prefetch,
        remedy="take the bucket's size out, or stage3_allgather_sequential",
        source="runtime/engine.py:2742",
        severity="overridden",
        keys=STAGE_3[:2],
        fix=_fix_sequential,
        needs=("given", "zero"),
    ),
)
