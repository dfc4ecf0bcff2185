"""Rules on what optimizers and schedules are built with, beyond DeepSpeed's own (optimizer.py, scheduler.py).

The engine hands `params` to the class as keywords. What each class takes was read off its signature
(vdsgen/catalog/data/deepspeed.json).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from vdsgen.catalog.engine_keys import engine_data
from vdsgen.rules import scheduler as schedulers
from vdsgen.rules.facts import Facts
from vdsgen.rules.rule import REMOVE, Change, Rule

OPTIMIZER, SCHEDULER = "/optimizer/params", "/scheduler/params"
ADAMS = ("adam", "adamw")
"""Their params have a rule of their own (optimizer-params)."""
MUON_PARAMS: Mapping[str, Any] = {
    "lr": 0.02, "momentum": 0.95, "weight_decay": 0, "ns_method": "gram", "betas": [0.9, 0.95], "eps": 1e-10,
    "muon_lr": 0.02, "adam_lr": 3e-4, "**": None,
}  # fmt: skip
"""runtime/engine.py:2408-2412, with values of their types; the engine takes no notice of others."""
NOT_NEGATIVE = ("lr", "eps", "weight_decay", "lr_decay", "momentum", "initial_accumulator_value")
"""torch.optim refuses negative ones."""
Signature = Mapping[str, Mapping[str, Any]]


def _optimizer_params(facts: Facts) -> Mapping[str, Any]:
    return {} if facts.optimizer.client else facts.optimizer.params or {}


def _signature(facts: Facts) -> Signature | None:
    """What the optimizer's class takes; None where none is built, or which is not known."""
    name = facts.optimizer.type or ""
    data = engine_data()["optimizers"]
    if name.lower() in ADAMS:
        variant = _adam(facts)
        return None if variant is None else data["adam"][variant]
    if name.lower() in ("adagrad", "lamb", "lion"):
        offloaded = facts.offload.optimizer in ("cpu", "nvme") and "offload" in data[name.lower()]
        signature: Signature = data[name.lower()]["offload" if offloaded else "gpu"]
        return signature
    if name.lower() == "muon":
        return {key: {"default": default} for key, default in MUON_PARAMS.items()}
    found: Signature | None = data.get(name, {}).get("torch")
    return found


def _adam(facts: Facts) -> str | None:
    if _optimizer_params(facts).get("torch_adam"):
        return "torch_adam"
    return {"cpu": "offload", "nvme": "offload", "none": "gpu"}.get(facts.offload.optimizer or "")


def _unknown_to_the_optimizer(facts: Facts) -> list[str]:
    signature = _signature(facts)
    if signature is None or "**" in signature or (facts.optimizer.type or "").lower() in ADAMS:
        return []
    return [name for name in _optimizer_params(facts) if name not in signature and name != "max_grad_norm"]


def _optimizer_takes_them(facts: Facts) -> str | None:
    unknown = _unknown_to_the_optimizer(facts)
    return f"{facts.optimizer.type} takes no {' and no '.join(unknown)}" if unknown else None


def _without_unknown(facts: Facts) -> tuple[Change, ...]:
    return tuple((f"{OPTIMIZER}/{name}", REMOVE) for name in _unknown_to_the_optimizer(facts))


def _is_number(value: object) -> bool:
    return isinstance(value, int | float)


def _odd_values(facts: Facts) -> Iterator[str]:
    """Params that are no numbers where the class needs them, or out of what torch allows."""
    signature = _signature(facts)
    if signature is None:
        return
    of_torch = _adam(facts) == "torch_adam" or (facts.optimizer.type or "").lower() not in (
        *ADAMS, "lion", "lamb", "muon",
    )  # fmt: skip
    for name, value in _optimizer_params(facts).items():
        default = signature.get(name, {}).get("default")
        if isinstance(default, list):
            if not isinstance(value, list) or len(value) != len(default) or not all(map(_is_number, value)):
                yield f"{name} is {value!r}, not {len(default)} numbers"
            elif of_torch and name == "betas" and not all(0 <= beta < 1 for beta in value):
                yield f"betas are {value}, not from 0 to below 1"
        elif _is_number(default) and not isinstance(default, bool):
            if not _is_number(value):
                yield f"{name} is {value!r}, not a number"
            elif of_torch and name in NOT_NEGATIVE and value < 0:
                yield f"{name} is {value}"


def _optimizer_values(facts: Facts) -> str | None:
    return " and ".join(_odd_values(facts)) or None


def _torch_schedule(facts: Facts) -> str | None:
    """The schedule's name, where it is one of torch's."""
    name = "" if facts.scheduler.client else facts.scheduler.type or ""
    if name in schedulers.DEEPSPEED or name not in schedulers.TORCH:
        return None
    return None if facts.optimizer.type == "" and not facts.optimizer.client else name


def _schedule_takes_them(facts: Facts) -> str | None:
    name, params = _torch_schedule(facts), facts.scheduler.params
    signature = engine_data()["schedulers"].get(name)
    if signature is None or params is None:
        return None
    unknown = [key for key in params if key not in signature]
    missing = [key for key, entry in signature.items() if entry.get("required") and key not in params]
    said = [f"takes no {' and no '.join(unknown)}"] if unknown else []
    said += [f"needs {' and '.join(missing)}"] if missing else []
    return f"{name} {' and '.join(said)}" if said else None


def _schedule_is_wrapped(facts: Facts) -> str | None:
    name, stage, dtype = _torch_schedule(facts), facts.zero_stage, facts.dtype
    if name is None or stage is None or dtype is None or (stage == 0 and dtype == "fp32"):
        return None
    return f"{name} of torch with {f'ZeRO stage {stage}' if stage else dtype}"


def _period(params: Mapping[str, Any]) -> str | None:
    """What the engine counts its steps in, at every one of them: any number but 0."""
    period = params.get("step_size", 1)
    return None if _is_number(period) and period else f"step_size is {period!r}"


def _schedule_values(facts: Facts) -> str | None:
    name = "" if facts.scheduler.client else facts.scheduler.type or ""
    if _torch_schedule(facts) == "StepLR":
        return _period(facts.scheduler.params or {})
    if name not in schedulers.DEEPSPEED or (facts.optimizer.type == "" and not facts.optimizer.client):
        return None
    signature = engine_data()["schedulers"][name]
    odd = []
    for key, value in (facts.scheduler.params or {}).items():
        if key not in signature or key in ("warmup_num_steps", "last_batch_iteration"):
            # One has a rule of its own; the other is counted on from, and "auto" passes that.
            continue
        entry = signature[key]
        is_number = key == "total_num_steps" or key.endswith(("_lr", "_ratio"))
        is_number = is_number or (_is_number(entry.get("default")) and not isinstance(entry["default"], bool))
        listed = isinstance(value, list) and key.endswith("_lr")
        if (
            is_number
            and not listed
            and not _is_number(value)
            and not (value is None and key == "warmup_max_lr")
        ):
            odd.append(f"{key} is {value!r}, not a number")
    return " and ".join(odd) or None


def _first_keys(section: str) -> tuple[str, ...]:
    names = ("lr", "betas", "eps", "weight_decay", "momentum")
    return (section, *(f"{section}/{name}" for name in names)) if section == OPTIMIZER else (section,)


RULES = (
    Rule(
        id="optimizer-class-params",
        summary="An optimizer takes its class's params only.",
        check=_optimizer_takes_them,
        remedy="take them out",
        source="runtime/engine.py:2495-2549",
        engine_message="got an unexpected keyword argument",
        keys=(OPTIMIZER,),
        fix=_without_unknown,
        needs=("optimizer",),
    ),
    Rule(
        id="optimizer-param-values",
        summary="Rates, decays and betas are numbers, in torch's optimizers not negative, betas below 1.",
        check=_optimizer_values,
        remedy="write numbers",
        source="runtime/engine.py:2493",
        keys=_first_keys(OPTIMIZER),
        needs=("optimizer",),
    ),
    Rule(
        id="scheduler-class-params",
        summary="A schedule of torch takes its class's params, and needs those without a default.",
        check=_schedule_takes_them,
        remedy="see torch.optim.lr_scheduler, or use one of DeepSpeed's schedules",
        source="runtime/engine.py:1935",
        engine_message="argument",
        keys=(SCHEDULER,),
        needs=("scheduler",),
    ),
    Rule(
        id="scheduler-torch-wrapped",
        summary=(
            "torch's schedules take torch's optimizers, which the engine's are only in fp32 without ZeRO: "
            "all others are wrapped."
        ),
        check=_schedule_is_wrapped,
        remedy=f"use {', '.join(list(schedulers.DEEPSPEED)[:-1])} or {list(schedulers.DEEPSPEED)[-1]}",
        source="runtime/engine.py:1935",
        engine_message="is not an Optimizer",
        keys=("/scheduler/type",),
        needs=("scheduler",),
    ),
    Rule(
        id="scheduler-param-values",
        summary=(
            "Rates, ratios and total_num_steps of DeepSpeed's schedules are numbers, and StepLR's step_size."
        ),
        check=_schedule_values,
        remedy="write numbers",
        source="runtime/lr_schedules.py:743",
        keys=(SCHEDULER,),
        needs=("scheduler",),
    ),
)
