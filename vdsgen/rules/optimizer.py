"""Rules on optimizers and gradient clipping."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from vdsgen.rules.facts import Facts
from vdsgen.rules.keys import removal, setting
from vdsgen.rules.rule import REMOVE, Change, Rule

SECTION = "/optimizer"
TYPE, PARAMS = f"{SECTION}/type", f"{SECTION}/params"
CLIPPING = "/gradient_clipping"

DEEPSPEED = ("adagrad", "adam", "adamw", "lamb", "muadam", "muadamw", "musgd", "lion", "muon")
"""In any case (runtime/config.py:59-62)."""
TORCH = (
    "ASGD", "Adadelta", "Adafactor", "Adagrad", "Adam", "AdamW", "Adamax", "LBFGS", "Muon", "NAdam", "RAdam",
    "RMSprop", "Rprop", "SGD", "SparseAdam",
)  # fmt: skip
"""Of torch.optim, exactly so."""
GONE = ("OneBitAdam", "ZeroOneAdam", "OneBitLamb")
TESTED_WITH_ZERO = ("adam", "adamw", "adagrad", "lion", "muon")
"""Of DEEPSPEED, those whose class ZeRO takes as it is (runtime/zero/utils.py:45)."""

_ADAM = "lr betas eps weight_decay amsgrad"
ADAM_PARAMS = {
    "torch": f"{_ADAM} maximize foreach capturable differentiable fused decoupled_weight_decay".split(),
    "cpu": f"{_ADAM} bias_correction".split(),
    "fused": f"{_ADAM} bias_correction set_grad_none".split(),
}
"""What torch.optim's AdamW, DeepSpeedCPUAdam and FusedAdam take from the file."""
FOR_THE_ENGINE = ("torch_adam", "adam_w_mode", "fp32_optimizer_states")
"""Taken out of Adam's params before it is built (runtime/engine.py:2373-2375, 2487)."""


def _name(facts: Facts) -> str:
    """The optimizer that the engine builds, lower case; empty where it builds none, or it is not known."""
    return "" if facts.optimizer.client else (facts.optimizer.type or "").lower()


def _params(facts: Facts) -> Mapping[str, Any]:
    return facts.optimizer.params or {}


def _exists(facts: Facts) -> str | None:
    name = facts.optimizer.type
    if not name or facts.optimizer.client or name in GONE:
        return None
    if name.lower() in DEEPSPEED or name in TORCH:
        return None
    return f"optimizer {name}"


def _correct_case(facts: Facts) -> tuple[Change, ...]:
    name = (facts.optimizer.type or "").lower()
    found = [one for one in TORCH if one.lower() == name]
    return ((TYPE, found[0]),) if found else ()


def _is_not_gone(facts: Facts) -> str | None:
    name = facts.optimizer.type
    return f"optimizer {name}" if name in GONE and not facts.optimizer.client else None


def _clips_outside(facts: Facts) -> str | None:
    if not _name(facts) or "max_grad_norm" not in _params(facts):
        return None
    return f"optimizer.params.max_grad_norm is {_params(facts)['max_grad_norm']}"


def _move_clipping(facts: Facts) -> tuple[Change, ...]:
    return (
        (f"{PARAMS}/max_grad_norm", REMOVE),
        (CLIPPING, _params(facts)["max_grad_norm"]),
    )


def _clipping_is_given(facts: Facts) -> str | None:
    if (
        facts.given is None
        or CLIPPING in facts.given
        or (not facts.optimizer.type and not facts.optimizer.client)
    ):
        return None
    return "gradient_clipping is not there, and the engine clips gradients to a norm of 1"


def _lamb_scale(facts: Facts) -> str | None:
    scale = facts.precision.loss_scale
    return f"Lamb with a fixed loss scale of {scale:g}" if _name(facts) == "lamb" and scale else None


def _tested_with_zero(facts: Facts) -> str | None:
    name = _name(facts)
    if not facts.zero_stage or not name or name in TESTED_WITH_ZERO or facts.optimizer.allow_untested:
        return None
    if name not in DEEPSPEED and facts.optimizer.type not in TORCH:
        return None
    return f"{facts.optimizer.type} at ZeRO stage {facts.zero_stage}"


def _zero_has_an_optimizer(facts: Facts) -> str | None:
    if facts.optimizer.type != "" or facts.optimizer.client is not False or facts.zero_stage not in (1, 2):
        return None
    return f"ZeRO stage {facts.zero_stage} without an optimizer"


def _section_is_used(facts: Facts) -> str | None:
    if not facts.optimizer.client or not facts.optimizer.type:
        return None
    return f"the training code brings an optimizer, and the file describes {facts.optimizer.type}"


def _adam_params(facts: Facts) -> list[str] | None:
    """What the Adam that the engine builds takes; None where it builds another optimizer."""
    if _name(facts) not in ("adam", "adamw"):
        return None
    if _params(facts).get("torch_adam"):
        return ADAM_PARAMS["torch"]
    if facts.offload.optimizer in ("cpu", "nvme"):
        return ADAM_PARAMS["cpu"]
    return ADAM_PARAMS["fused"] if facts.offload.optimizer == "none" else None


def _unknown_params(facts: Facts) -> list[str]:
    known = _adam_params(facts)
    if known is None:
        return []
    skipped = (*FOR_THE_ENGINE, "max_grad_norm")
    return [name for name in _params(facts) if name not in known and name not in skipped]


def _params_are_known(facts: Facts) -> str | None:
    unknown = _unknown_params(facts)
    if not unknown:
        return None
    kinds = {id(names): kind for kind, names in ADAM_PARAMS.items()}
    kind = kinds[id(_adam_params(facts))]
    adam = {"torch": "torch's Adam", "cpu": "DeepSpeed's CPU Adam", "fused": "DeepSpeed's FusedAdam"}[kind]
    return f"{adam} takes no {' and no '.join(unknown)}"


def _fix_params(facts: Facts) -> tuple[Change, ...]:
    return tuple((f"{PARAMS}/{name}", REMOVE) for name in _unknown_params(facts))


def _fused_or_foreach(facts: Facts) -> str | None:
    params = _params(facts)
    if _name(facts) not in ("adam", "adamw") or not params.get("torch_adam"):
        return None
    return (
        "optimizer.params.fused and foreach are both true"
        if params.get("fused") and params.get("foreach")
        else None
    )


def _no_amsgrad(facts: Facts) -> str | None:
    params = _params(facts)
    if not params.get("amsgrad") or _adam_params(facts) in (None, ADAM_PARAMS["torch"]):
        return None
    return f"{facts.optimizer.type} with amsgrad"


def _adam_decays_like_adamw(facts: Facts) -> str | None:
    params = _params(facts)
    decay = params.get("weight_decay")
    if _name(facts) != "adam" or not decay or "adam_w_mode" in params:
        return None
    return f"Adam with weight_decay {decay}, which the engine makes AdamW"


def _muon_at_stage_3(facts: Facts) -> str | None:
    if _name(facts) != "muon" or facts.zero_stage != 3 or facts.zero.reduce_scatter is False:
        return None
    return None if facts.zero.reduce_scatter is None else "Muon at ZeRO stage 3 with reduce_scatter"


def _muon_without_quantized_gradients(facts: Facts) -> str | None:
    if _name(facts) != "muon" or facts.zero_stage != 3 or facts.zero.reduce_scatter is not False:
        return None
    return "Muon with zero_quantized_gradients" if facts.zero.quantized_gradients else None


def _muon_in_a_pipeline(facts: Facts) -> str | None:
    if _name(facts) != "muon" or not facts.is_pipeline or not facts.uses_bf16_optimizer:
        return None
    return "Muon with BF16_Optimizer in a pipeline"


def _momentum_in_memory(facts: Facts) -> str | None:
    if not facts.zero.save_muon_momentum_buffer_in_memory or not _name(facts):
        return None
    if _name(facts) == "muon" and facts.offload.optimizer in (None, "nvme"):
        return None
    return "save_muon_momentum_buffer_in_memory is for Muon with the optimizer offloaded to nvme"


RULES = (
    Rule(
        id="optimizer-exists",
        summary="The optimizer is one of DeepSpeed's, or a class of torch.optim spelled as there.",
        check=_exists,
        remedy=f"use {', '.join(DEEPSPEED[:-1])} or {DEEPSPEED[-1]}, or a class of torch.optim",
        source="runtime/engine.py:2018",
        engine_message="is not a supported DeepSpeed Optimizer",
        keys=(TYPE,),
        fix=_correct_case,
        needs=("optimizer",),
    ),
    Rule(
        id="optimizer-removed",
        summary="1-bit Adam, 0/1 Adam and 1-bit LAMB are gone.",
        check=_is_not_gone,
        remedy="use AdamW; communication_data_type makes gradients smaller",
        source="runtime/engine.py:2018",
        engine_message="is not a supported DeepSpeed Optimizer",
        keys=(TYPE,),
        needs=("optimizer",),
    ),
    Rule(
        id="optimizer-clipping",
        summary="Gradients are clipped by gradient_clipping, not by the optimizer's max_grad_norm.",
        check=_clips_outside,
        remedy="move the value to gradient_clipping",
        source="runtime/engine.py:2482",
        engine_message="'max_grad_norm' is not supported as an optimizer parameter",
        keys=(f"{PARAMS}/max_grad_norm", CLIPPING),
        fix=_move_clipping,
        needs=("optimizer",),
    ),
    Rule(
        id="gradient-clipping-given",
        summary="gradient_clipping is given: left out, gradients are clipped to a norm of 1.",
        check=_clipping_is_given,
        remedy="set gradient_clipping, to 0 for none",
        source="runtime/constants.py:203",
        severity="hurts",
        keys=(CLIPPING,),
        fix=setting(CLIPPING, 1.0),
        needs=("optimizer", "given"),
    ),
    Rule(
        id="optimizer-lamb-scale",
        summary="Lamb needs a dynamic loss scale.",
        check=_lamb_scale,
        remedy="set fp16.loss_scale to 0",
        source="runtime/engine.py:2022",
        engine_message="optimizer requires dynamic loss scaling",
        keys=("/fp16/loss_scale", TYPE),
        fix=setting("/fp16/loss_scale", 0),
        needs=("optimizer", "precision"),
    ),
    Rule(
        id="optimizer-tested-with-zero",
        summary="ZeRO takes optimizers that it was not tested with only where told so.",
        check=_tested_with_zero,
        remedy="set zero_allow_untested_optimizer to true, or use AdamW",
        source="runtime/engine.py:2299",
        engine_message="You are using an untested ZeRO Optimizer",
        keys=(TYPE, "/zero_allow_untested_optimizer"),
        fix=setting("/zero_allow_untested_optimizer", True),
        needs=("optimizer",),
    ),
    Rule(
        id="zero-needs-optimizer",
        summary="ZeRO stages 1 and 2 share an optimizer's states: they need one.",
        check=_zero_has_an_optimizer,
        remedy="describe an optimizer, or hand one to deepspeed.initialize",
        source="runtime/engine.py:2659",
        engine_message="requires an optimizer",
        keys=(SECTION, "/zero_optimization/stage"),
        needs=("optimizer",),
    ),
    Rule(
        id="optimizer-section-unused",
        summary="An optimizer of the training code takes the place of the file's.",
        check=_section_is_used,
        remedy="take the section out, or do not hand deepspeed.initialize an optimizer",
        source="runtime/engine.py:2329-2340",
        severity="ignored",
        keys=(SECTION,),
        fix=removal(SECTION),
        needs=("optimizer",),
    ),
    Rule(
        id="optimizer-params",
        summary="Adam's params are those of the class that is built: torch's, FusedAdam or DeepSpeedCPUAdam.",
        check=_params_are_known,
        remedy="take the parameter out, or set torch_adam to true for torch's",
        source="runtime/engine.py:2493",
        engine_message="got an unexpected keyword argument",
        keys=(PARAMS,),
        fix=_fix_params,
        needs=("optimizer",),
    ),
    Rule(
        id="optimizer-fused-or-foreach",
        summary="torch's Adam is fused or foreach.",
        check=_fused_or_foreach,
        remedy="take foreach out",
        source="runtime/engine.py:2381",
        engine_message="cannot be `True` together",
        keys=(f"{PARAMS}/foreach", f"{PARAMS}/fused"),
        fix=removal(f"{PARAMS}/foreach"),
        needs=("optimizer",),
    ),
    Rule(
        id="optimizer-amsgrad",
        summary="DeepSpeed's own Adams have no AMSGrad.",
        check=_no_amsgrad,
        remedy="take amsgrad out, or set torch_adam to true",
        source="ops/adam/fused_adam.py:88",
        engine_message="does not support the AMSGrad variant",
        keys=(f"{PARAMS}/amsgrad",),
        fix=removal(f"{PARAMS}/amsgrad"),
        needs=("optimizer",),
    ),
    Rule(
        id="optimizer-adam-is-adamw",
        summary="Adam is AdamW unless adam_w_mode is false: its weight decay is decoupled.",
        check=_adam_decays_like_adamw,
        remedy="write AdamW, or set adam_w_mode to false",
        source="runtime/engine.py:2490",
        severity="overridden",
        keys=(TYPE, f"{PARAMS}/adam_w_mode"),
        fix=setting(TYPE, "AdamW"),
        needs=("optimizer",),
    ),
    Rule(
        id="muon-reduce-scatter",
        summary="Muon at stage 3 needs whole gradients: reduce_scatter, on by default, is refused.",
        check=_muon_at_stage_3,
        remedy="set reduce_scatter to false",
        source="runtime/zero/stage3.py:361",
        engine_message="Muon and reduce scatter cannot be used together",
        keys=("/zero_optimization/reduce_scatter", TYPE),
        fix=setting("/zero_optimization/reduce_scatter", False),
        needs=("optimizer", "zero"),
    ),
    Rule(
        id="muon-quantized-gradients",
        summary="Muon and quantized gradients exclude each other.",
        check=_muon_without_quantized_gradients,
        remedy="take zero_quantized_gradients out",
        source="runtime/zero/stage3.py:363",
        engine_message="Muon and all2all process group cannot be used together",
        keys=("/zero_optimization/zero_quantized_gradients", TYPE),
        fix=removal("/zero_optimization/zero_quantized_gradients"),
        needs=("optimizer", "zero"),
    ),
    Rule(
        id="muon-pipeline",
        summary="Muon and BF16_Optimizer work on data-parallel ranks only, not in a pipeline.",
        check=_muon_in_a_pipeline,
        remedy="use AdamW, or no pipeline",
        source="runtime/bf16_optimizer.py:61",
        engine_message="BF16 Muon currently requires FP32 accumulation, dense DP and eager execution",
        keys=(TYPE,),
        needs=("optimizer",),
    ),
    Rule(
        id="muon-momentum-in-memory",
        summary="save_muon_momentum_buffer_in_memory is for Muon whose states are on NVMe.",
        check=_momentum_in_memory,
        remedy="take it out",
        source="runtime/zero/stage3.py:1123",
        severity="ignored",
        keys=("/zero_optimization/save_muon_momentum_buffer_in_memory",),
        fix=removal("/zero_optimization/save_muon_momentum_buffer_in_memory"),
        needs=("optimizer", "zero"),
    ),
)
