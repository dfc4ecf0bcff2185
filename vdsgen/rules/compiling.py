"""Rules on the section compile: DeepCompile. What they refuse is raised by engine.compile()."""

from __future__ import annotations

from vdsgen.rules.facts import Facts
from vdsgen.rules.keys import below, present, removal
from vdsgen.rules.rule import REMOVE, Rule

SECTION = "/compile"
ON, PASSES, ACTIVATION, STATES, PARAMETERS, EAGER_EXPERTS = below(
    SECTION,
    "deepcompile passes offload_activation offload_opt_states offload_parameters autoep_non_moe",
)
ZERO_PASSES = ("z1", "z3")


def _passes(facts: Facts) -> tuple[str, ...]:
    return facts.compile.passes or ()


def _compiles_zero(facts: Facts) -> bool:
    """Whether DeepCompile's own passes for ZeRO run."""
    return bool(facts.compile.deepcompile) and not {"autosp", "autotp"} & set(_passes(facts))


def _has_zero(facts: Facts) -> str | None:
    if not _compiles_zero(facts) or facts.zero_stage != 0:
        return None
    return "compile.deepcompile is true at ZeRO stage 0"


def _managed(facts: Facts) -> str | None:
    if not facts.compile.deepcompile or facts.pipeline.managed_gradient_accumulation is not False:
        return None
    return None if facts.is_pipeline else "managed_gradient_accumulation is false with DeepCompile"


def _states_in_one_place(facts: Facts) -> str | None:
    device = facts.offload.optimizer
    if not _compiles_zero(facts) or not facts.compile.offload_opt_states or facts.zero_stage != 3:
        return None
    return (
        f"compile.offload_opt_states with the optimizer offloaded to {device}"
        if device in ("cpu", "nvme")
        else None
    )


def _offloads_activations_alone(facts: Facts) -> str | None:
    section = facts.compile
    if not _compiles_zero(facts) or not section.offload_activation or facts.zero_stage != 3:
        return None
    others = {
        "offload_parameters": section.offload_parameters,
        "offload_opt_states": section.offload_opt_states,
    }
    found = [name for name, is_on in others.items() if is_on]
    return f"compile.offload_activation with {' and '.join(found)}" if found else None


def _offloads_one(facts: Facts) -> str | None:
    section = facts.compile
    if not _compiles_zero(facts) or facts.zero_stage != 3 or section.offload_activation:
        return None
    both = section.offload_parameters and section.offload_opt_states
    return "compile.offload_parameters and offload_opt_states are both true" if both else None


def _autotp_alone(facts: Facts) -> str | None:
    passes = _passes(facts)
    others = [name for name in passes if name in ("autosp", *ZERO_PASSES)]
    if not facts.compile.deepcompile or "autotp" not in passes or not others:
        return None
    return f"compile.passes has autotp beside {' and '.join(others)}"


def _autotp_has_ranks(facts: Facts) -> str | None:
    size = facts.tensor_parallel.autotp_size
    if not facts.compile.deepcompile or "autotp" not in _passes(facts) or size is None or size > 1:
        return None
    return f"compile.passes has autotp, and tensor_parallel.autotp_size is {size}"


def _autosp_below_stage_2(facts: Facts) -> str | None:
    if not facts.compile.deepcompile or "autosp" not in _passes(facts) or facts.zero_stage in (None, 0, 1):
        return None
    return f"compile.passes has autosp at ZeRO stage {facts.zero_stage}"


def _experts_without_deepcompile(facts: Facts) -> str | None:
    if not facts.compile.autoep_non_moe or not facts.compile.deepcompile:
        return None
    return "compile.autoep_non_moe and compile.deepcompile are both true"


def _is_on(facts: Facts) -> str | None:
    if facts.compile.deepcompile is not False or facts.compile.autoep_non_moe or facts.given is None:
        return None
    found = [
        key
        for key in facts.given
        if key.startswith(f"{SECTION}/") and key.count("/") == 2 and key not in (ON, EAGER_EXPERTS)
    ]
    if not found:
        return None
    return f"compile.{min(found).rpartition('/')[2]} is there, and compile.deepcompile is not true"


RULES = (
    Rule(
        id="deepcompile-zero",
        summary="DeepCompile is ZeRO's: at stage 0 torch.compile takes its place.",
        check=_has_zero,
        remedy="use ZeRO stage 1, 2 or 3, or take compile.deepcompile out",
        source="runtime/engine.py:5803",
        severity="overridden",
        keys=(ON, "/zero_optimization/stage"),
        fix=removal(ON),
        needs=("compile",),
    ),
    Rule(
        id="deepcompile-managed-accumulation",
        summary="DeepCompile counts micro-batches itself.",
        check=_managed,
        remedy="leave managed_gradient_accumulation at true",
        source="runtime/engine.py:2035",
        engine_message="managed_gradient_accumulation=False is not supported with DeepCompile",
        keys=("/managed_gradient_accumulation", ON),
        fix=removal("/managed_gradient_accumulation"),
        needs=("compile", "pipeline"),
    ),
    Rule(
        id="deepcompile-states-offload",
        summary="Optimizer states are offloaded by DeepCompile or by ZeRO.",
        check=_states_in_one_place,
        remedy="take compile.offload_opt_states out, or offload_optimizer",
        source="compile/init_z3.py:94",
        engine_message="compile.offload_opt_states cannot be combined with ZeRO's",
        keys=(STATES, "/zero_optimization/offload_optimizer"),
        fix=removal(STATES),
        needs=("compile",),
    ),
    Rule(
        id="deepcompile-activation-offload",
        summary="DeepCompile offloads activations, or parameters, or optimizer states.",
        check=_offloads_activations_alone,
        remedy="keep one of them",
        source="compile/init_z3.py:101",
        engine_message="compile.offload_activation cannot be combined",
        keys=(ACTIVATION, PARAMETERS, STATES),
        fix=removal(ACTIVATION),
        needs=("compile",),
    ),
    Rule(
        id="deepcompile-one-offload",
        summary="DeepCompile offloads parameters or optimizer states.",
        check=_offloads_one,
        remedy="keep one of them",
        source="compile/init_z3.py:148",
        engine_message="offload_parameters and offload_opt_states cannot be enabled together",
        keys=(PARAMETERS, STATES),
        fix=removal(STATES),
        needs=("compile",),
    ),
    Rule(
        id="deepcompile-autotp-alone",
        summary="The pass autotp runs alone.",
        check=_autotp_alone,
        remedy="take the other passes out",
        source="runtime/engine.py:5843",
        engine_message="The AutoTP compile pass cannot yet be combined",
        keys=(PASSES,),
        needs=("compile",),
    ),
    Rule(
        id="deepcompile-autotp-ranks",
        summary="The pass autotp needs tensor parallel ranks: without, torch.compile takes its place.",
        check=_autotp_has_ranks,
        remedy="set tensor_parallel.autotp_size above 1, or take the pass out",
        source="runtime/engine.py:5784",
        severity="overridden",
        keys=(PASSES, "/tensor_parallel/autotp_size"),
        needs=("compile", "tensor_parallel"),
    ),
    Rule(
        id="deepcompile-autosp-stage",
        summary="The pass autosp works at stages 0 and 1: above, torch.compile takes its place.",
        check=_autosp_below_stage_2,
        remedy="use ZeRO stage 0 or 1",
        source="runtime/engine.py:5774",
        severity="overridden",
        keys=(PASSES, "/zero_optimization/stage"),
        needs=("compile",),
    ),
    Rule(
        id="deepcompile-eager-experts",
        summary="Compiling around eager experts excludes DeepCompile.",
        check=_experts_without_deepcompile,
        remedy="take one of the two out",
        source="runtime/engine.py:5891",
        engine_message="compile.autoep_non_moe=True uses vanilla torch.compile",
        keys=(EAGER_EXPERTS, ON),
        fix=removal(EAGER_EXPERTS),
        needs=("compile",),
    ),
    Rule(
        id="deepcompile-on",
        summary="Options of DeepCompile do nothing where it is off.",
        check=_is_on,
        remedy="set compile.deepcompile to true, or take the section out",
        source="runtime/engine.py:5921",
        severity="ignored",
        keys=(SECTION,),
        fix=lambda facts: tuple((key, REMOVE) for key in present(facts, (SECTION,))),
        needs=("compile", "given"),
    ),
)
