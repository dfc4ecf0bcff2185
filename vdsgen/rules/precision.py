"""Rules on number formats and ZeRO's buffers."""

from __future__ import annotations

from vdsgen.rules.facts import Facts
from vdsgen.rules.rule import Rule

VERSIONS = "0.19.8"


def _one_half_precision(facts: Facts) -> str | None:
    return "fp16 and bf16 are both enabled" if facts.fp16_enabled and facts.bf16_enabled else None


def _gpu_has_fp16(facts: Facts) -> str | None:
    if not facts.fp16_enabled or facts.gpu_has_fp16 is not False:
        return None
    return f"fp16 on {facts.gpu or 'this GPU'}, which has no fp16"


def _gpu_has_bf16(facts: Facts) -> str | None:
    if not facts.bf16_enabled or facts.gpu_has_bf16 is not False:
        return None
    return f"bf16 on {facts.gpu or 'this GPU'}, which has no bf16"


def _accumulation_needs_zero(facts: Facts) -> str | None:
    dtype, accumulation = facts.dtype, facts.gradient_accumulation_dtype
    if facts.zero_stage != 0 or dtype is None or accumulation is None or accumulation == dtype:
        return None
    return f"ZeRO stage 0 with a {dtype} model and {accumulation} gradient accumulation"


def _accumulation_keeps_precision(facts: Facts) -> str | None:
    dtype, accumulation = facts.dtype, facts.gradient_accumulation_dtype
    if dtype is None or accumulation is None or accumulation in (dtype, "fp32"):
        return None
    return f"gradients of a {dtype} model accumulate in {accumulation}"


def _zero_stage_exists(facts: Facts) -> str | None:
    if facts.zero_stage is None or 0 <= facts.zero_stage <= 3:
        return None
    return f"ZeRO stage {facts.zero_stage}"


def _allgather_bucket_is_even(facts: Facts) -> str | None:
    elements = facts.zero.allgather_bucket_elements
    bf16_optimizer = facts.dtype == "bf16" and facts.gradient_accumulation_dtype == "fp32"
    if elements is None or elements % 2 == 0 or facts.zero_stage not in (1, 2):
        return None
    if facts.zero_stage == 1 and bf16_optimizer:
        return None  # BF16_Optimizer does not look
    return f"allgather_bucket_size is {elements}, an odd number of elements"


RULES = (
    Rule(
        id="one-half-precision",
        summary="fp16 and bf16 are not enabled together.",
        check=_one_half_precision,
        remedy="enable one of them",
        source="runtime/config.py:511",
        versions=VERSIONS,
        engine_message="bfloat16 and fp16 modes cannot be simultaneously enabled",
    ),
    Rule(
        id="gpu-has-fp16",
        summary="fp16 needs a device that supports it.",
        check=_gpu_has_fp16,
        remedy="use precision auto, bf16 or fp32",
        source="runtime/engine.py:2003",
        versions=VERSIONS,
        engine_message="Type fp16 is not supported on your device",
    ),
    Rule(
        id="gpu-has-bf16",
        summary="bf16 needs a device that supports it.",
        check=_gpu_has_bf16,
        remedy="use precision auto, fp16 or fp32",
        source="runtime/engine.py:2006",
        versions=VERSIONS,
        engine_message="Type bf16 is not supported on your device",
    ),
    Rule(
        id="accumulation-needs-zero",
        summary="Without ZeRO, gradients accumulate in the model's dtype.",
        check=_accumulation_needs_zero,
        remedy="use ZeRO stage 1 or more, or accumulate in the model's dtype",
        source="runtime/engine.py:2323",
        versions=VERSIONS,
        engine_message="unsupported mix of model_dtype",
    ),
    Rule(
        id="accumulation-keeps-precision",
        summary=(
            "Gradients accumulate in fp32 or in the model's dtype: the engine takes other pairs without a "
            "word, and rounds the sum to a format of less range or precision."
        ),
        check=_accumulation_keeps_precision,
        remedy="set data_types.grad_accum_dtype to fp32 or to the model's dtype",
        source="runtime/engine.py:1806",
        versions=VERSIONS,
    ),
    Rule(
        id="zero-stage-exists",
        summary="ZeRO has the stages 0 to 3.",
        check=_zero_stage_exists,
        remedy="use a stage from 0 to 3",
        source="runtime/zero/config.py:95",
        versions=VERSIONS,
        engine_message="Input should be 0, 1, 2, 3",
    ),
    Rule(
        id="allgather-bucket-even",
        summary="allgather_bucket_size is even: buffers are aligned to two elements.",
        check=_allgather_bucket_is_even,
        remedy="use an even number of elements",
        source="runtime/zero/stage_1_and_2.py:390",
        versions=VERSIONS,
        engine_message="allgather_bucket_size must be a multiple of nccl_start_alignment_factor",
    ),
)
