"""Defaults that DeepSpeed's schema alone does not tell: those of the optimizer's and the schedule's class,
and of keys that the training entrypoint reads."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from vdsgen.catalog.engine_keys import engine_data
from vdsgen.review.absent import ABSENT

DEEPSPEED_OPTIMIZERS = frozenset(
    {"adagrad", "adam", "adamw", "lamb", "muadam", "muadamw", "musgd", "lion", "muon"}
)
"""Known in any case (runtime/config.py:63, :519); other names are torch.optim's, as they are spelled."""
TRAINER_DEFAULTS: Mapping[str, Any] = {
    "stages": 1,
    "tensor_parallel_size": 1,
    "sequence_parallel_size": 1,
    "offload_activations": False,
    "optimizer_state_dtype": "fp32",
    "linear_precision": "exact",
}
"""Of keys that the training entrypoint reads; those that are missing here stand for nothing where they are
left out (spec/trainer_section.py, spec/run.py)."""


def optimizer_name(written: Any, params: Mapping[str, Any]) -> Any:
    """`adamw` for Adam too, which is AdamW unless adam_w_mode is false (runtime/engine.py:2489)."""
    if not isinstance(written, str) or written.lower() not in DEEPSPEED_OPTIMIZERS:
        return written
    name = written.lower()
    return "adamw" if name == "adam" and params.get("adam_w_mode", True) else name


def optimizer_defaults(
    written: Any, params: Mapping[str, Any], offloaded: bool, zenflow: bool
) -> Mapping[str, Any]:
    """Parameter -> default, of the class that is built; empty where none is known."""
    known = engine_data()["optimizers"]
    if not isinstance(written, str):
        return {}
    name = written.lower() if written.lower() in DEEPSPEED_OPTIMIZERS else written
    if name in ("adam", "adamw") and params.get("torch_adam"):
        is_adamw = name == "adamw" or params.get("adam_w_mode", True)
        found = known["adam"]["torch_adam"] if is_adamw else known["Adam"]["torch"]
        extra: Mapping[str, Any] = {"adam_w_mode": {"default": True}, "torch_adam": {"default": False}}
        return _defaults({**found, **extra})
    classes = known.get("adam" if name == "adamw" else name, {})
    by_place = ("offload", "gpu", "torch") if offloaded else ("gpu", "torch", "offload")
    found = next((classes[place] for place in by_place if place in classes), {})
    if zenflow and offloaded and "zenflow" in classes:
        found = {**found, **{key: value for key, value in classes["zenflow"].items() if key != "**"}}
    extra = {"torch_adam": {"default": False}} if name in ("adam", "adamw") else {}
    return _defaults({**found, **extra})


def _defaults(params: Mapping[str, Any]) -> Mapping[str, Any]:
    return {name: entry["default"] for name, entry in params.items() if "default" in entry}


def schedule_default(kind: Any, name: str, rate: Any) -> Any:
    """Of a schedule's parameter; WarmupLR rises to the optimizer's rate (runtime/lr_schedules.py:738)."""
    if kind == "WarmupLR" and name == "warmup_max_lr":
        return rate
    entry = engine_data()["schedulers"].get(kind, {}).get(name, {}) if isinstance(kind, str) else {}
    return entry.get("default", ABSENT)


def trainer_default(name: str) -> Any:
    return TRAINER_DEFAULTS.get(name, ABSENT)


def peak_rate(value: Callable[[str], Any]) -> float | None:
    """The highest learning rate, of the schedule where it has one of its own; None where none is known."""
    kind = value("scheduler.type")
    own = {
        "WarmupLR": "warmup_max_lr", "WarmupDecayLR": "warmup_max_lr", "OneCycle": "cycle_max_lr",
    }.get(kind if isinstance(kind, str) else "")  # fmt: skip
    rate = value("optimizer.params.lr") if own is None else value(f"scheduler.params.{own}")
    number = isinstance(rate, int | float) and not isinstance(rate, bool)
    return float(rate) if number and kind != "LRRangeTest" else None
