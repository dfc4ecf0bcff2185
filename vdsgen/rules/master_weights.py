"""Rules on keeping master weights and optimizer states in half precision."""

from __future__ import annotations

from vdsgen.rules.facts import Facts
from vdsgen.rules.keys import removal
from vdsgen.rules.rule import Rule

FP16 = "/fp16/fp16_master_weights_and_grads"
BF16 = "/bf16/bf16_master_weights_and_grads"
STATES = "/bf16/bf16_optimizer_states"


def _fp16_needs_zero(facts: Facts) -> str | None:
    if not facts.precision.fp16_master_weights_and_grads or facts.zero_stage != 0:
        return None
    return "fp16_master_weights_and_grads is true at ZeRO stage 0"


def _bf16_needs_zero(facts: Facts) -> str | None:
    if not facts.precision.bf16_master_weights_and_grads or facts.zero_stage != 0:
        return None
    return "bf16_master_weights_and_grads is true at ZeRO stage 0"


def _states_need_zero(facts: Facts) -> str | None:
    precision = facts.precision
    if (
        not precision.bf16_optimizer_states
        or precision.bf16_master_weights_and_grads
        or facts.zero_stage != 0
    ):
        return None
    return "bf16_optimizer_states is true at ZeRO stage 0"


def _states_need_master_weights(facts: Facts) -> str | None:
    precision = facts.precision
    if not precision.bf16_optimizer_states or precision.bf16_master_weights_and_grads is not False:
        return None
    return "bf16_optimizer_states is true, bf16_master_weights_and_grads false" if facts.zero_stage else None


def _one_of_them(facts: Facts) -> str | None:
    precision = facts.precision
    if not (precision.fp16_master_weights_and_grads and precision.bf16_master_weights_and_grads):
        return None
    if not facts.zero_stage or facts.uses_bf16_optimizer is not False:
        return None
    return "fp16_master_weights_and_grads and bf16_master_weights_and_grads are both true"


def _cpu_adam_missing(facts: Facts) -> str | None:
    """What keeps the engine from DeepSpeed's CPU Adam, which updates them; None where nothing is known."""
    if not facts.zero_stage or facts.uses_bf16_optimizer is not False:
        return None
    if facts.offload.optimizer == "none":
        return "without optimizer offload"
    name, params = facts.optimizer.type, facts.optimizer.params
    if facts.offload.optimizer is None or name is None or facts.optimizer.client is not False:
        return None
    if name.lower() not in ("adam", "adamw"):
        return f"with the optimizer {name}"
    return f"with torch_adam in {name}" if (params or {}).get("torch_adam") else None


def _fp16_needs_cpu_adam(facts: Facts) -> str | None:
    precision = facts.precision
    if not precision.fp16_master_weights_and_grads or precision.bf16_master_weights_and_grads:
        return None
    missing = _cpu_adam_missing(facts)
    return f"fp16_master_weights_and_grads {missing}" if missing else None


def _bf16_needs_cpu_adam(facts: Facts) -> str | None:
    precision = facts.precision
    if not precision.bf16_master_weights_and_grads or precision.fp16_master_weights_and_grads:
        return None
    if precision.bf16_optimizer_states is not False and facts.offload.optimizer in (None, "none"):
        return None  # all of it stays on the GPU
    missing = _cpu_adam_missing(facts)
    return f"bf16_master_weights_and_grads {missing}" if missing else None


RULES = (
    Rule(
        id="fp16-master-weights-zero",
        summary="fp16 master weights are ZeRO's.",
        check=_fp16_needs_zero,
        remedy="use ZeRO stage 1, 2 or 3, or take fp16_master_weights_and_grads out",
        source="runtime/config.py:703",
        engine_message="Fp16_master_weights_and_grads is only supported with ZeRO Stage 1, 2, or 3.",
        keys=(FP16, "/zero_optimization/stage"),
        fix=removal(FP16),
        needs=("precision",),
    ),
    Rule(
        id="bf16-master-weights-zero",
        summary="bf16 master weights are ZeRO's.",
        check=_bf16_needs_zero,
        remedy="use ZeRO stage 1, 2 or 3, or take bf16_master_weights_and_grads out",
        source="runtime/config.py:707",
        engine_message="Bf16_master_weights_and_grads is only supported with ZeRO Stage 1, 2, or 3.",
        keys=(BF16, "/zero_optimization/stage"),
        fix=removal(BF16, STATES),
        needs=("precision",),
    ),
    Rule(
        id="bf16-states-zero",
        summary="bf16 optimizer states are ZeRO's.",
        check=_states_need_zero,
        remedy="use ZeRO stage 1, 2 or 3, or take bf16_optimizer_states out",
        source="runtime/config.py:711",
        engine_message="bf16_optimizer_states is only supported with ZeRO Stage 1, 2, or 3.",
        keys=(STATES, "/zero_optimization/stage"),
        fix=removal(STATES),
        needs=("precision",),
    ),
    Rule(
        id="bf16-states-master-weights",
        summary="bf16 optimizer states need bf16 master weights.",
        check=_states_need_master_weights,
        remedy="set bf16_master_weights_and_grads to true, or take bf16_optimizer_states out",
        source="runtime/config.py:714",
        engine_message="bf16_optimizer_states requires bf16_master_weights_and_grads to be enabled.",
        keys=(STATES, BF16),
        fix=removal(STATES),
        needs=("precision",),
    ),
    Rule(
        id="master-weights-exclusive",
        summary="Master weights are in fp16 or in bf16.",
        check=_one_of_them,
        remedy="take one of the two out",
        source="runtime/base_optimizer.py:499",
        engine_message="fp16_master_weights_and_gradients and bf16_master_weights_and_gradients are mutually",
        keys=(FP16, BF16),
        fix=removal(FP16),
        needs=("precision",),
    ),
    Rule(
        id="fp16-master-weights-cpu-adam",
        summary="fp16 master weights are updated by DeepSpeed's CPU Adam only.",
        check=_fp16_needs_cpu_adam,
        remedy="offload the optimizer to cpu and use AdamW without torch_adam",
        source="runtime/zero/stage_1_and_2.py:332",
        engine_message="Master weights feature requires",
        keys=(FP16, "/optimizer"),
        fix=removal(FP16),
        needs=("precision",),
    ),
    Rule(
        id="bf16-master-weights-cpu-adam",
        summary=(
            "bf16 master weights are updated by DeepSpeed's CPU Adam, unless bf16_optimizer_states keeps all "
            "on the GPU."
        ),
        check=_bf16_needs_cpu_adam,
        remedy=(
            "offload the optimizer to cpu and use AdamW without torch_adam, or set bf16_optimizer_states "
            "to true"
        ),
        source="runtime/base_optimizer.py:512",
        engine_message="Master weights feature requires",
        keys=(BF16, "/optimizer"),
        fix=removal(BF16, STATES),
        needs=("precision",),
    ),
)
