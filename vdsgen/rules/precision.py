"""Rules on number formats."""

from __future__ import annotations

from vdsgen.rules.facts import Facts
from vdsgen.rules.keys import are, below, present, removal, setting
from vdsgen.rules.rule import REMOVE, Change, Rule

ACCUMULATION = "/data_types/grad_accum_dtype"
PARAMETER = "/data_types/param_dtype"
OF_BF16 = below("/bf16", "immediate_grad_update check_grad_overflow") + below(
    "/bfloat16", "immediate_grad_update check_grad_overflow"
)
OF_FP16 = below(
    "/fp16",
    "loss_scale initial_scale_power loss_scale_window hysteresis consecutive_hysteresis min_loss_scale",
)
IMMEDIATE = ("/bf16/immediate_grad_update", "/bfloat16/immediate_grad_update")

LINEAR = "/vdsgen/linear_precision"

HALF_NAMES = ("torch.float16", "fp16", "float16", "half")
"""Of fp16, in `torch_autocast.dtype`."""


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


def _parameters_match(facts: Facts) -> str | None:
    dtype, asked = facts.dtype, facts.precision.parameter_dtype
    names = {"fp32": "float", "fp16": "half", "bf16": "bfloat16"}
    if dtype is None or asked is None:
        return None
    short = asked.removeprefix("torch.")
    if short in (dtype, names[dtype], {"fp32": "float32", "fp16": "float16", "bf16": "bfloat16"}[dtype]):
        return None
    return f"data_types.param_dtype is {asked}, and the model's dtype {dtype}"


def _is_fp32(facts: Facts) -> str | None:
    if (
        facts.dtype != "fp32"
        or facts.machine.accelerator != "cuda"
        or facts.precision.autocast_enabled is not False
    ):
        return None
    return f"fp32 on {facts.gpu or 'a GPU'}, which has bf16" if facts.gpu_has_bf16 else None


def _bf16_keys_unread(facts: Facts) -> str | None:
    found = _unread_bf16_keys(facts)
    return f"{are(found)} there, and the optimizer in use does not read it" if found else None


def _unread_bf16_keys(facts: Facts) -> tuple[str, ...]:
    """BF16_Optimizer reads one of the two, ZeRO's stages 1 and 2 the other."""
    if not facts.bf16_enabled or facts.uses_bf16_optimizer is None:
        return ()
    found = present(facts, OF_BF16)
    if facts.uses_bf16_optimizer:
        return tuple(key for key in found if key not in IMMEDIATE)
    if facts.zero_stage in (1, 2):
        return tuple(key for key in found if key in IMMEDIATE)
    return found


def _keys_of_fp16_when_off(facts: Facts) -> str | None:
    found = present(facts, OF_FP16)
    return f"{are(found)} there, and fp16 is not enabled" if found and facts.fp16_enabled is False else None


def _autocast_scales_stages(facts: Facts) -> str | None:
    stages = facts.pipeline_parallel_size
    if not facts.precision.autocast_enabled or facts.precision.autocast_dtype not in HALF_NAMES:
        return None
    if facts.zero_stage != 0 or stages is None or stages < 2:
        return None
    return f"torch_autocast in fp16 without ZeRO on {stages} pipeline stages"


def _inputs_cast_alone(facts: Facts) -> str | None:
    if not facts.precision.fp16_auto_cast or facts.fp16_enabled is not False or facts.is_pipeline:
        return None
    if facts.precision.autocast_enabled:
        return None
    return "fp16.auto_cast is true, and fp16.enabled false"


def _autocast_beside(facts: Facts) -> str | None:
    if not facts.precision.autocast_enabled or facts.dtype in (None, "fp32"):
        return None
    return f"torch_autocast beside a {facts.dtype} model, whose weights are {facts.dtype} already"


def _gpu_has_linear_precision(facts: Facts) -> str | None:
    value = facts.precision.linear
    there = {"fp8": facts.gpu_has_fp8, "int8": facts.gpu_has_int8}.get(value or "")
    if there is not False:
        return None
    return f"linear layers in {value} on {facts.gpu or 'this GPU'}, which has no {value} products"


def _fp8_is_of_bf16(facts: Facts) -> str | None:
    if facts.precision.linear != "fp8" or facts.dtype in (None, "bf16"):
        return None
    return f"linear layers in fp8 of a {facts.dtype} model"


RULES = (
    Rule(
        id="one-half-precision",
        summary="fp16 and bf16 are not enabled together.",
        check=_one_half_precision,
        remedy="enable one of them",
        source="runtime/config.py:511",
        engine_message="bfloat16 and fp16 modes cannot be simultaneously enabled",
        keys=("/fp16/enabled", "/bf16/enabled"),
        fix=setting("/fp16/enabled", False),
    ),
    Rule(
        id="gpu-has-fp16",
        summary="fp16 needs a device that supports it.",
        check=_gpu_has_fp16,
        remedy="use precision auto, bf16 or fp32",
        source="runtime/engine.py:2003",
        engine_message="Type fp16 is not supported on your device",
        keys=("/fp16/enabled",),
    ),
    Rule(
        id="gpu-has-bf16",
        summary="bf16 needs a device that supports it.",
        check=_gpu_has_bf16,
        remedy="use precision auto, fp16 or fp32",
        source="runtime/engine.py:2006",
        engine_message="Type bf16 is not supported on your device",
        keys=("/bf16/enabled",),
    ),
    Rule(
        id="accumulation-needs-zero",
        summary="Without ZeRO, gradients accumulate in the model's dtype.",
        check=_accumulation_needs_zero,
        remedy="use ZeRO stage 1 or more, or accumulate in the model's dtype",
        source="runtime/engine.py:2323",
        engine_message="unsupported mix of model_dtype",
        keys=(ACCUMULATION, "/zero_optimization/stage"),
        fix=removal(ACCUMULATION),
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
        severity="hurts",
        keys=(ACCUMULATION,),
        fix=removal(ACCUMULATION),
    ),
    Rule(
        id="parameter-dtype",
        summary="data_types.param_dtype says the same as fp16 and bf16.",
        check=_parameters_match,
        remedy="take data_types.param_dtype out, or enable the matching fp16 or bf16",
        source="runtime/engine.py:1827",
        engine_message="conflicts with the enabled precision mode",
        keys=(PARAMETER,),
        fix=removal(PARAMETER),
        needs=("precision",),
    ),
    Rule(
        id="half-precision-used",
        summary="A GPU with bf16 computes in it: fp32 takes twice the memory and a multiple of the time.",
        check=_is_fp32,
        remedy="enable bf16",
        source="runtime/engine.py:1799-1804",
        severity="hurts",
        keys=("/bf16/enabled",),
        fix=setting("/bf16/enabled", True),
        needs=("precision", "machine"),
    ),
    Rule(
        id="fp16-auto-cast-off",
        summary="fp16.auto_cast makes inputs half whether or not fp16 is enabled, weights only where it is.",
        check=_inputs_cast_alone,
        remedy="enable fp16, or take fp16.auto_cast out",
        source="runtime/engine.py:2957",
        engine_message="must have the same dtype",
        keys=("/fp16/auto_cast",),
        fix=removal("/fp16/auto_cast"),
        needs=("precision",),
    ),
    Rule(
        id="autocast-fp16-stages",
        summary=(
            "Without ZeRO, torch_autocast in fp16 has a scaler on each pipeline stage, and what sets it up, "
            "the loss, is the last stage's."
        ),
        check=_autocast_scales_stages,
        remedy="autocast to bf16, or use ZeRO stage 1",
        source="runtime/engine.py:3509",
        engine_message="_scale is None",
        keys=("/torch_autocast/dtype", "/zero_optimization/stage"),
        fix=setting("/torch_autocast/dtype", "bf16"),
        needs=("precision",),
    ),
    Rule(
        id="autocast-with-half-precision",
        summary="torch_autocast keeps fp32 weights; with fp16 or bf16 enabled there are none to keep.",
        check=_autocast_beside,
        remedy="use torch_autocast, or fp16 or bf16",
        source="runtime/engine.py:1862",
        severity="hurts",
        keys=("/torch_autocast",),
        fix=removal("/torch_autocast"),
        needs=("precision",),
    ),
    Rule(
        id="linear-precision-on-gpu",
        summary=(
            "Linear layers in 8 bits need tensor cores that have the format (fp8: Ada, Hopper and later; "
            "int8: Turing and later): elsewhere they are emulated, and take longer than exact ones."
        ),
        check=_gpu_has_linear_precision,
        remedy="leave training.linear_precision out, or train where the GPU has the format",
        source="vdsgen/model/low_precision/product.py, has_fp8",
        severity="hurts",
        keys=(LINEAR,),
        fix=removal(LINEAR),
        needs=("precision",),
    ),
    Rule(
        id="linear-fp8-in-bf16",
        summary=(
            "fp8 products with a scale for every row put out bf16: linear layers of fp16 and fp32 models are "
            "emulated, and take longer than exact ones."
        ),
        check=_fp8_is_of_bf16,
        remedy="train in bf16, or use int8",
        source="vdsgen/model/low_precision/product.py, has_fp8",
        severity="hurts",
        keys=(LINEAR, "/bf16/enabled"),
        fix=removal(LINEAR),
        needs=("precision",),
    ),
    Rule(
        id="bf16-keys-unread",
        summary=(
            "bf16.immediate_grad_update is BF16_Optimizer's, bf16.check_grad_overflow that of ZeRO's stages "
            "1 and 2; other optimizers read neither."
        ),
        check=_bf16_keys_unread,
        remedy="take it out",
        source="runtime/engine.py:2638-2643",
        severity="ignored",
        keys=OF_BF16,
        fix=lambda facts: _removed(_unread_bf16_keys(facts)),
        needs=("given",),
    ),
    Rule(
        id="fp16-keys-unread",
        summary="Keys of fp16 do nothing where fp16 is not enabled.",
        check=_keys_of_fp16_when_off,
        remedy="take them out, or enable fp16",
        source="runtime/engine.py:1672",
        severity="ignored",
        keys=OF_FP16,
        fix=removal(*OF_FP16),
        needs=("given",),
    ),
)


def _removed(keys: tuple[str, ...]) -> tuple[Change, ...]:
    return tuple((key, REMOVE) for key in keys)
