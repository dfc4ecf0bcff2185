"""The section of ds_config.json that the training entrypoint reads, and DeepSpeed does not: it drops
top-level keys that it does not know (runtime/config.py, 0.19.8)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast, get_args

from pydantic import ValidationError

from vdsgen.errors import VdsgenError
from vdsgen.spec.linear_precision import LinearPrecision
from vdsgen.spec.training import Ema

SECTION = "vdsgen"
COMPRESSION, EMA, STATE_DTYPE = "gradient_compression", "ema", "optimizer_state_dtype"
LINEAR = "linear_precision"
KEYS = (COMPRESSION, EMA, STATE_DTYPE, LINEAR)


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


def linear_precision_of(ds_config: Mapping[str, Any]) -> LinearPrecision:
    """What blocks' linear layers multiply in. Raises VdsgenError for what is no such precision."""
    value = trainer_section(ds_config).get(LINEAR, "exact")
    known = get_args(LinearPrecision)
    if value not in known:
        raise VdsgenError(
            f"ds_config.json: {SECTION}.{LINEAR} is {value!r}", remedy=f"use {', '.join(known)}"
        )
    return cast(LinearPrecision, value)


def ema_of(ds_config: Mapping[str, Any]) -> Ema | None:
    """How weights are averaged; None where they are not. Raises VdsgenError for what is no such setting."""
    found = trainer_section(ds_config).get(EMA)
    if found is None:
        return None
    try:
        return Ema.model_validate(found)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in (SECTION, EMA, *first["loc"]))
        raise VdsgenError(f"ds_config.json: {key}: {first['msg']}") from error
