"""Rules on learning rate schedules."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from vdsgen.rules.facts import Facts
from vdsgen.rules.keys import removal, setting
from vdsgen.rules.rule import REMOVE, Change, Rule

SECTION = "/scheduler"
TYPE, PARAMS = f"{SECTION}/type", f"{SECTION}/params"
LR = "/optimizer/params/lr"

_WARMUP = "warmup_num_steps warmup_type last_batch_iteration"
DEEPSPEED: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "LRRangeTest": (
        (),
        (
            "lr_range_test_min_lr", "lr_range_test_step_size", "lr_range_test_step_rate",
            "lr_range_test_staircase", "last_batch_iteration",
        ),
    ),
    "OneCycle": (
        ("cycle_min_lr", "cycle_max_lr"),
        (
            "decay_lr_rate", "cycle_first_step_size", "cycle_second_step_size", "cycle_first_stair_count",
            "cycle_second_stair_count", "decay_step_size", "cycle_momentum", "cycle_min_mom", "cycle_max_mom",
            "decay_mom_rate", "last_batch_iteration",
        ),
    ),
    "WarmupLR": ((), ("warmup_min_lr", "warmup_max_lr", *_WARMUP.split())),
    "WarmupDecayLR": (("total_num_steps",), ("warmup_min_lr", "warmup_max_lr", *_WARMUP.split())),
    "WarmupCosineLR": (("total_num_steps",), ("warmup_min_ratio", "cos_min_ratio", *_WARMUP.split())),
}  # fmt: skip
"""What each schedule must be given, and may be given besides (runtime/lr_schedules.py)."""
TORCH = (
    "ChainedScheduler", "ConstantLR", "CosineAnnealingLR", "CosineAnnealingWarmRestarts", "CyclicLR",
    "ExponentialLR", "LRScheduler", "LambdaLR", "LinearLR", "MultiStepLR", "MultiplicativeLR", "OneCycleLR",
    "PolynomialLR", "ReduceLROnPlateau", "SequentialLR", "StepLR", "_LRScheduler",
)  # fmt: skip
"""Of torch.optim.lr_scheduler."""
WARMING = ("WarmupLR", "WarmupDecayLR", "WarmupCosineLR")
PEAKS = {"WarmupLR": "warmup_max_lr", "WarmupDecayLR": "warmup_max_lr", "OneCycle": "cycle_max_lr"}
"""The param of those with a peak of their own."""
CYCLED_BETA = 0.99
"""The second beta of an optimizer whose momentum OneCycle cycles; the first is 0.8 to 0.9 unless told."""
DECAY_PEAK = 0.001
"""The peak of WarmupDecayLR where none is given."""
RISES = ("log", "linear")


def _name(facts: Facts) -> str:
    return "" if facts.scheduler.client else facts.scheduler.type or ""


def _params(facts: Facts) -> Mapping[str, Any]:
    return facts.scheduler.params or {}


def _exists(facts: Facts) -> str | None:
    name = _name(facts)
    return f"scheduler {name}" if name and name not in DEEPSPEED and name not in TORCH else None


def _has_params(facts: Facts) -> str | None:
    if not _name(facts) or _exists(facts) or facts.given is None or PARAMS in facts.given:
        return None
    return f"{_name(facts)} without params"


def _has_what_it_needs(facts: Facts) -> str | None:
    if _name(facts) not in DEEPSPEED or facts.scheduler.params is None or _has_params(facts):
        return None
    missing = [key for key in DEEPSPEED[_name(facts)][0] if key not in _params(facts)]
    return f"{_name(facts)} without {' and '.join(missing)}" if missing else None


def _unknown(facts: Facts) -> list[str]:
    if _name(facts) not in DEEPSPEED:
        return []
    required, optional = DEEPSPEED[_name(facts)]
    return [key for key in _params(facts) if key not in required and key not in optional]


def _params_are_known(facts: Facts) -> str | None:
    unknown = _unknown(facts)
    return (
        f"{_name(facts)} takes no {' and no '.join(unknown)}"
        if unknown and not _has_what_it_needs(facts)
        else None
    )


def _without_unknown(facts: Facts) -> tuple[Change, ...]:
    return tuple((f"{PARAMS}/{key}", REMOVE) for key in _unknown(facts))


def _is_positive(value: object) -> bool:
    return isinstance(value, int) and value > 0


def _warmup_is_positive(facts: Facts) -> str | None:
    steps = _params(facts).get("warmup_num_steps", 1)
    if _name(facts) not in WARMING or _is_positive(steps) or steps == "auto":
        return None
    return f"warmup_num_steps is {steps!r}"


def _range_step_is_positive(facts: Facts) -> str | None:
    steps = _params(facts).get("lr_range_test_step_size", 1)
    if _name(facts) != "LRRangeTest" or _is_positive(steps) or steps == "auto":
        return None
    return f"lr_range_test_step_size is {steps!r}"


def _cycle_is_positive(facts: Facts) -> str | None:
    first = _params(facts).get("cycle_first_step_size", 1)
    second = _params(facts).get("cycle_second_step_size")
    if _name(facts) != "OneCycle":
        return None
    if isinstance(first, int | float) and first <= 0:
        return f"cycle_first_step_size is {first}"
    return f"cycle_second_step_size is {second}" if isinstance(second, int | float) and second < 0 else None


def _warms_up_over_two(facts: Facts) -> str | None:
    params = _params(facts)
    if _name(facts) not in WARMING or params.get("warmup_num_steps") != 1 or "last_batch_iteration" in params:
        return None  # a schedule that starts late may be past it
    return "warmup_num_steps is 1, which the engine makes 2"


def _rise_is_known(facts: Facts) -> str | None:
    rise = _params(facts).get("warmup_type", "log")
    if _name(facts) not in WARMING or rise in RISES or rise == "auto":
        return None
    return f"warmup_type is {rise!r}, which the engine makes log"


def _ends_after_warmup(facts: Facts) -> str | None:
    total, warmup = _params(facts).get("total_num_steps"), _params(facts).get("warmup_num_steps", 1000)
    if _name(facts) not in WARMING or not isinstance(total, int) or not isinstance(warmup, int):
        return None
    return f"total_num_steps is {total}, warmup_num_steps {warmup}" if total < max(2, warmup) else None


def _own_rate(facts: Facts) -> float | None:
    rate = (facts.optimizer.params or {}).get("lr")
    return rate if isinstance(rate, int | float) else None


def _peak_is_given(facts: Facts) -> str | None:
    rate = _own_rate(facts)
    if _name(facts) != "WarmupDecayLR" or "warmup_max_lr" in _params(facts) or rate in (None, DECAY_PEAK):
        return None
    return f"the optimizer's lr is {rate}, and WarmupDecayLR without warmup_max_lr rises to {DECAY_PEAK}"


def _peak(facts: Facts) -> tuple[str, object]:
    """The param of the schedule's own peak, and its value; empty for one without."""
    name = PEAKS.get(_name(facts), "")
    return name, _params(facts).get(name)


def _peak_is_the_rate(facts: Facts) -> str | None:
    (name, peak), rate = _peak(facts), _own_rate(facts)
    if rate is None or not isinstance(peak, int | float) or peak == rate:
        return None
    return f"the optimizer's lr is {rate}, and {_name(facts)} rises to {name} {peak}"


def _betas_stay(facts: Facts) -> str | None:
    betas = (facts.optimizer.params or {}).get("betas")
    if _name(facts) != "OneCycle" or not _params(facts).get("cycle_momentum", True):
        return None
    if not isinstance(betas, list | tuple) or _params(facts).get("cycle_momentum") == "auto":
        return None
    least, most = (
        _params(facts).get(key, default) for key, default in (("cycle_min_mom", 0.8), ("cycle_max_mom", 0.9))
    )
    if list(betas) == [least, CYCLED_BETA] and least == most:
        return None
    return (
        f"the optimizer's betas are {list(betas)}, and OneCycle makes them {most} down to {least}, and "
        f"{CYCLED_BETA}"
    )


def _section_is_used(facts: Facts) -> str | None:
    if not facts.scheduler.client or not facts.scheduler.type:
        return None
    return f"the training code brings a scheduler, and the file describes {facts.scheduler.type}"


def _has_an_optimizer(facts: Facts) -> str | None:
    if not _name(facts) or facts.optimizer.type != "" or facts.optimizer.client is not False:
        return None
    return f"{_name(facts)} without an optimizer"


RULES = (
    Rule(
        id="scheduler-exists",
        summary="The schedule is one of DeepSpeed's, or a class of torch.optim.lr_scheduler.",
        check=_exists,
        remedy=f"use {', '.join(list(DEEPSPEED)[:-1])} or {list(DEEPSPEED)[-1]}",
        source="runtime/engine.py:1929",
        engine_message="DeepSpeed does not recognize LR scheduler",
        keys=(TYPE,),
        needs=("scheduler",),
    ),
    Rule(
        id="scheduler-params-given",
        summary="A schedule has params, be they empty.",
        check=_has_params,
        remedy="give params, at least {}",
        source="runtime/engine.py:1935",
        engine_message="argument after ** must be a mapping, not NoneType",
        keys=(TYPE, PARAMS),
        fix=setting(PARAMS, {}),
        needs=("scheduler", "given"),
    ),
    Rule(
        id="scheduler-params-complete",
        summary="Decaying schedules need total_num_steps, OneCycle its two rates.",
        check=_has_what_it_needs,
        remedy="give it",
        source="runtime/engine.py:1935",
        engine_message="missing",
        keys=(PARAMS, TYPE),
        needs=("scheduler",),
    ),
    Rule(
        id="scheduler-params-known",
        summary="A schedule takes its own params only.",
        check=_params_are_known,
        remedy="take it out",
        source="runtime/engine.py:1935",
        engine_message="got an unexpected keyword argument",
        keys=(PARAMS, TYPE),
        fix=_without_unknown,
        needs=("scheduler",),
    ),
    Rule(
        id="scheduler-warmup-positive",
        summary="A warm-up takes a positive whole number of steps.",
        check=_warmup_is_positive,
        remedy="use 2 or more, or a schedule without warm-up",
        source="runtime/lr_schedules.py:734",
        engine_message="warmup_num_steps must be a positive integer",
        keys=(f"{PARAMS}/warmup_num_steps",),
        needs=("scheduler",),
    ),
    Rule(
        id="scheduler-range-step",
        summary="LRRangeTest's step is a positive whole number.",
        check=_range_step_is_positive,
        remedy="use 1 or more",
        source="runtime/lr_schedules.py:371",
        engine_message="lr_range_test_step_size must be a positive integer",
        keys=(f"{PARAMS}/lr_range_test_step_size",),
        needs=("scheduler",),
    ),
    Rule(
        id="scheduler-cycle",
        summary="OneCycle rises over a positive number of steps, and falls over one that is not negative.",
        check=_cycle_is_positive,
        remedy="use 1 or more",
        source="runtime/lr_schedules.py:527",
        engine_message="step_size must be",
        keys=(f"{PARAMS}/cycle_first_step_size", f"{PARAMS}/cycle_second_step_size"),
        needs=("scheduler",),
    ),
    Rule(
        id="scheduler-warmup-one",
        summary="The shortest warm-up takes two steps.",
        check=_warms_up_over_two,
        remedy="use 2",
        source="runtime/lr_schedules.py:744",
        severity="overridden",
        keys=(f"{PARAMS}/warmup_num_steps",),
        fix=setting(f"{PARAMS}/warmup_num_steps", 2),
        needs=("scheduler",),
    ),
    Rule(
        id="scheduler-warmup-type",
        summary="A warm-up rises by log or linear.",
        check=_rise_is_known,
        remedy="use log or linear",
        source="runtime/lr_schedules.py:746",
        severity="overridden",
        keys=(f"{PARAMS}/warmup_type",),
        fix=setting(f"{PARAMS}/warmup_type", "linear"),
        needs=("scheduler",),
    ),
    Rule(
        id="scheduler-ends-after-warmup",
        summary="A decaying schedule is longer than its warm-up, or it never decays.",
        check=_ends_after_warmup,
        remedy="raise total_num_steps or lower warmup_num_steps",
        source="runtime/lr_schedules.py:827",
        severity="hurts",
        keys=(f"{PARAMS}/total_num_steps", f"{PARAMS}/warmup_num_steps"),
        needs=("scheduler",),
    ),
    Rule(
        id="scheduler-peak-given",
        summary="WarmupDecayLR rises to 0.001 unless told otherwise, whatever the optimizer's rate is.",
        check=_peak_is_given,
        remedy="set warmup_max_lr to the optimizer's lr",
        source="runtime/lr_schedules.py:818",
        severity="overridden",
        keys=(LR, PARAMS),
        fix=lambda facts: ((f"{PARAMS}/warmup_max_lr", _own_rate(facts)),),
        needs=("scheduler", "optimizer"),
    ),
    Rule(
        id="scheduler-peak-is-rate",
        summary="A schedule with a peak of its own takes the place of the optimizer's rate.",
        check=_peak_is_the_rate,
        remedy="make the two equal",
        source="runtime/lr_schedules.py:738",
        severity="overridden",
        keys=(LR, f"{PARAMS}/warmup_max_lr", f"{PARAMS}/cycle_max_lr"),
        fix=lambda facts: ((LR, _peak(facts)[1]),),
        needs=("scheduler", "optimizer"),
    ),
    Rule(
        id="scheduler-cycle-betas",
        summary="OneCycle puts momenta of its own, and a second beta of 0.99, in the place of Adam's betas.",
        check=_betas_stay,
        remedy="set cycle_momentum to false, which leaves the betas as they are",
        source="runtime/lr_schedules.py:572",
        severity="overridden",
        keys=("/optimizer/params/betas", f"{PARAMS}/cycle_momentum", PARAMS),
        fix=setting(f"{PARAMS}/cycle_momentum", False),
        needs=("scheduler", "optimizer"),
    ),
    Rule(
        id="scheduler-section-unused",
        summary="A scheduler of the training code takes the place of the file's.",
        check=_section_is_used,
        remedy="take the section out, or do not hand deepspeed.initialize a scheduler",
        source="runtime/engine.py:1883-1890",
        severity="ignored",
        keys=(SECTION,),
        fix=removal(SECTION),
        needs=("scheduler",),
    ),
    Rule(
        id="scheduler-needs-optimizer",
        summary="Without an optimizer no schedule is made.",
        check=_has_an_optimizer,
        remedy="describe an optimizer, or hand one to deepspeed.initialize",
        source="runtime/engine.py:681",
        severity="ignored",
        keys=(SECTION,),
        fix=removal(SECTION),
        needs=("scheduler", "optimizer"),
    ),
)
