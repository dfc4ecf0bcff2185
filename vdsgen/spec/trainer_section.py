"""The section of ds_config.json that the training entrypoint reads, and DeepSpeed does not: it drops
top-level keys that it does not know (runtime/config.py, 0.19.8)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from vdsgen.errors import VdsgenError
from vdsgen.spec.optimization import Schedule
from vdsgen.spec.training import Ema

SECTION = "vdsgen"
COMPRESSION, EMA, SCHEDULE, STATE_DTYPE = (
    "gradient_compression",
    "ema",
    "schedule",
    "optimizer_state_dtype",
)
Setting = TypeVar("Setting", bound=BaseModel)
KEYS = (COMPRESSION, EMA, SCHEDULE, STATE_DTYPE)


def trainer_section(ds_config: Mapping[str, Any]) -> Mapping[str, Any]:
    """The section; empty where there is none. Raises VdsgenError where it is no object or has another key."""
    section = ds_config.get(SECTION, {})
    if not isinstance(section, Mapping):
        raise VdsgenError(f"ds_config.json: {SECTION} is {section!r}, must be an object")
    unknown = sorted(set(section) - set(KEYS))
    if unknown:
        raise VdsgenError(
            f"ds_config.json: nothing reads {SECTION}.{unknown[0]}",
            remedy=f"the section's keys are {', '.join(KEYS)}",
        )
    return section


def quantises_moments(ds_config: Mapping[str, Any]) -> bool:
    """Whether AdamW keeps its moments in int8. Raises VdsgenError for another dtype than int8 and fp32."""
    value = trainer_section(ds_config).get(STATE_DTYPE, "fp32")
    if value not in ("fp32", "int8"):
        raise VdsgenError(f"ds_config.json: {SECTION}.{STATE_DTYPE} is {value!r}", remedy="use int8 or fp32")
    return bool(value == "int8")


def ema_of(ds_config: Mapping[str, Any]) -> Ema | None:
    """How weights are averaged; None where they are not. Raises VdsgenError for what is no such setting."""
    return _setting(ds_config, EMA, Ema)


def own_schedule(ds_config: Mapping[str, Any]) -> Schedule | None:
    """The learning rate's course where it is none of DeepSpeed's. Raises VdsgenError for what is no such
    setting, for one of DeepSpeed's, and beside a `scheduler`."""
    found = _setting(ds_config, SCHEDULE, Schedule)
    if found is None:
        return None
    if not found.is_the_trainers:
        raise VdsgenError(
            f"ds_config.json: {SECTION}.{SCHEDULE}.type is {found.type!r}, which DeepSpeed has",
            remedy="describe it under scheduler",
        )
    if "scheduler" in ds_config:
        raise VdsgenError(
            f"ds_config.json: both scheduler and {SECTION}.{SCHEDULE} set the learning rate",
            remedy="take one of them out",
        )
    return found


def _setting(ds_config: Mapping[str, Any], name: str, kind: type[Setting]) -> Setting | None:
    found = trainer_section(ds_config).get(name)
    if found is None:
        return None
    try:
        return kind.model_validate(found)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in (SECTION, name, *first["loc"]))
        raise VdsgenError(f"ds_config.json: {key}: {first['msg']}") from error
