"""Rules on ZenFlow, which updates important columns on the GPU and the rest on the host, later."""

from __future__ import annotations

from vdsgen.rules.facts import Facts
from vdsgen.rules.keys import removal
from vdsgen.rules.optimizer import ADAM_PARAMS, PARAMS
from vdsgen.rules.rule import REMOVE, Change, Rule

SECTION = "/zero_optimization/zenflow"
STRATEGY = f"{SECTION}/select_strategy"
SELECT = f"{SECTION}/select_interval"
UPDATE = f"{SECTION}/update_interval"
STRATEGIES = ("auto", "step", "epoch")
OLDEST_TORCH = (2, 1)


def _offloads(facts: Facts) -> str | None:
    if not facts.zenflow.present or facts.zero_stage not in (1, 2) or facts.uses_bf16_optimizer is not False:
        return None
    return "ZenFlow without optimizer offload" if facts.offload.optimizer == "none" else None


def _has_an_optimizer(facts: Facts) -> str | None:
    if not facts.zenflow.present or facts.pipeline.is_pipeline is not False:
        return None
    if facts.zero_stage == 0:
        return "ZenFlow without ZeRO"
    if facts.zero_stage == 1 and facts.uses_bf16_optimizer:
        return "ZenFlow at ZeRO stage 1 with bf16 and fp32 gradient accumulation"
    return None


def _strategy(facts: Facts) -> str | None:
    strategy = facts.zenflow.select_strategy
    return None if strategy is None or strategy in STRATEGIES else f"zenflow.select_strategy is {strategy!r}"


def _interval_is_left_open(facts: Facts) -> str | None:
    zenflow = facts.zenflow
    if zenflow.select_strategy != "auto" or not isinstance(zenflow.select_interval, int):
        return None
    return f"zenflow.select_strategy is auto, and select_interval {zenflow.select_interval}"


def _interval_is_a_number(facts: Facts) -> str | None:
    zenflow = facts.zenflow
    if zenflow.select_strategy not in ("step", "epoch") or zenflow.select_interval != "auto":
        return None
    return f"zenflow.select_strategy is {zenflow.select_strategy}, and select_interval auto"


def _update_is_positive(facts: Facts) -> str | None:
    update = facts.zenflow.update_interval
    return f"zenflow.update_interval is {update}" if isinstance(update, int) and update < 1 else None


def _selects_less_often(facts: Facts) -> str | None:
    select, update = facts.zenflow.select_interval, facts.zenflow.update_interval
    if facts.zenflow.select_strategy != "step" or not isinstance(select, int) or not isinstance(update, int):
        return None
    if select == 0 or update < 1 or select >= update:
        return None
    return f"zenflow.select_interval is {select}, update_interval {update}"


def _offload_overlaps(facts: Facts) -> str | None:
    if not facts.zenflow.offload or facts.zero.overlap_comm is not False or not facts.zero_stage:
        return None
    return "zenflow.offload is true, and overlap_comm false"


def _torch_is_new(facts: Facts) -> str | None:
    torch = facts.machine.torch_version
    if not facts.zenflow.present or torch is None or torch >= OLDEST_TORCH:
        return None
    return f"ZenFlow with torch {torch[0]}.{torch[1]}"


def _foreign_params(facts: Facts) -> list[str]:
    """The optimizer's params that torch's AdamW does not take: ZenFlow hands it all that the file has."""
    if not facts.zenflow.present or facts.zero_stage not in (1, 2) or facts.uses_bf16_optimizer is not False:
        return []
    return [name for name in facts.optimizer.params or {} if name not in ADAM_PARAMS["torch"]]


def _params_are_torchs(facts: Facts) -> str | None:
    found = _foreign_params(facts)
    return f"ZenFlow takes no {' and no '.join(found)}" if found else None


def _without_foreign(facts: Facts) -> tuple[Change, ...]:
    return tuple((f"{PARAMS}/{name}", REMOVE) for name in _foreign_params(facts))


def _accumulation_is_replaced(facts: Facts) -> str | None:
    steps, update = facts.gradient_accumulation_steps, facts.zenflow.update_interval
    if not facts.zenflow.present or steps is None or not isinstance(update, int) or steps == update:
        return None
    return f"gradient_accumulation_steps is {steps}, and zenflow.update_interval {update} takes its place"


RULES = (
    Rule(
        id="zenflow-offload",
        summary="ZenFlow needs optimizer offload.",
        check=_offloads,
        remedy="offload the optimizer to cpu, or take zenflow out",
        source="runtime/zenflow/zenflow_stage_1_and_2.py:116",
        engine_message="Zenflow must be used with cpu offload",
        keys=(SECTION, "/zero_optimization/offload_optimizer"),
        fix=removal(SECTION),
        needs=("zenflow",),
    ),
    Rule(
        id="zenflow-optimizer",
        summary="ZenFlow has optimizers for ZeRO's stages 1 to 3, and none for BF16_Optimizer.",
        check=_has_an_optimizer,
        remedy="use ZeRO stage 2 or 3, or take zenflow out",
        source="runtime/engine.py:3606",
        engine_message="object has no attribute",
        keys=(SECTION, "/zero_optimization/stage"),
        fix=removal(SECTION),
        needs=("zenflow", "pipeline"),
    ),
    Rule(
        id="zenflow-strategy",
        summary="ZenFlow selects by auto, step or epoch.",
        check=_strategy,
        remedy="use auto, step or epoch",
        source="runtime/zenflow/zenflow_config.py:55",
        engine_message='select_strategy must be one of "auto", "step", or "epoch"',
        keys=(STRATEGY,),
        fix=removal(STRATEGY),
        needs=("zenflow",),
    ),
    Rule(
        id="zenflow-auto-interval",
        summary="ZenFlow's strategy auto chooses the interval itself: a number beside it is refused.",
        check=_interval_is_left_open,
        remedy="take select_interval out, or use the strategy step or epoch",
        source="runtime/zenflow/engine.py:39",
        engine_message="If use auto select strategy, select_interval will be set to 1",
        keys=(SELECT, STRATEGY),
        fix=removal(SELECT),
        needs=("zenflow",),
    ),
    Rule(
        id="zenflow-interval",
        summary="ZenFlow's strategies step and epoch need an interval.",
        check=_interval_is_a_number,
        remedy="give select_interval a number",
        source="runtime/zenflow/engine.py:45",
        engine_message="If don't use auto select strategy, select_interval must be a number.",
        keys=(SELECT, STRATEGY),
        needs=("zenflow",),
    ),
    Rule(
        id="zenflow-update-positive",
        summary="ZenFlow updates the rest every step or less often.",
        check=_update_is_positive,
        remedy="use 1 or more",
        source="runtime/zenflow/zenflow_config.py:64",
        engine_message="If update_interval is a number, it must be at least 1",
        keys=(UPDATE,),
        fix=removal(UPDATE),
        needs=("zenflow",),
    ),
    Rule(
        id="zenflow-select-covers-update",
        summary="ZenFlow selects columns no more often than it updates the rest.",
        check=_selects_less_often,
        remedy="raise select_interval to update_interval at least",
        source="runtime/zenflow/engine.py:63",
        engine_message="Select interval must be greater or equal to update interval",
        keys=(SELECT, UPDATE),
        fix=lambda facts: ((SELECT, facts.zenflow.update_interval),),
        needs=("zenflow",),
    ),
    Rule(
        id="zenflow-offload-overlap",
        summary="Offloading ZenFlow's own states needs overlap_comm.",
        check=_offload_overlaps,
        remedy="set overlap_comm to true, or zenflow.offload to false",
        source="runtime/zenflow/zenflow_stage_1_and_2.py:76",
        engine_message="offload selective optimizer should be used with overlap_comm",
        keys=(f"{SECTION}/offload", "/zero_optimization/overlap_comm"),
        fix=removal(f"{SECTION}/offload"),
        needs=("zenflow", "zero"),
    ),
    Rule(
        id="zenflow-torch",
        summary="ZenFlow needs torch 2.1.",
        check=_torch_is_new,
        remedy="use a newer torch, or take zenflow out",
        source="runtime/zenflow/engine.py:29",
        engine_message="Please use PyTorch 2.1 or later to enable ZenFlow",
        keys=(SECTION,),
        fix=removal(SECTION),
        needs=("zenflow", "machine"),
    ),
    Rule(
        id="zenflow-optimizer-params",
        summary="ZenFlow hands the optimizer's params to a class of torch's AdamW as they are.",
        check=_params_are_torchs,
        remedy="take the parameter out",
        source="runtime/zenflow/zenflow_stage_1_and_2.py:81",
        engine_message="got an unexpected keyword argument",
        keys=(PARAMS, SECTION),
        fix=_without_foreign,
        needs=("zenflow", "optimizer"),
    ),
    Rule(
        id="zenflow-accumulation",
        summary="ZenFlow's update interval takes the place of the gradient accumulation steps.",
        check=_accumulation_is_replaced,
        remedy="make the two equal",
        source="runtime/zenflow/engine.py:69",
        severity="overridden",
        keys=("/gradient_accumulation_steps", UPDATE),
        needs=("zenflow",),
    ),
)
