"""The keys of a rendered DeepSpeed config that something reads: DeepSpeed drops unknown ones in silence."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from vdsgen.catalog.engine_keys import keys_that_are_read
from vdsgen.catalog.trainer_keys import READ_BY_THE_TRAINER
from vdsgen.spec.suggest import did_you_mean

CHECKED_BY_HAND = ("pipeline", "data_types", "optimizer", "scheduler")
"""Sections whose own keys DeepSpeed does not check. `zero_optimization`, `fp16` and `bf16` it does."""


def unread_keys(ds_config: Mapping[str, Any]) -> list[tuple[str, str | None]]:
    """(key path, the nearest key that is read, if any) for each key that neither the engine nor the training
    entrypoint reads."""
    top = keys_that_are_read("") | READ_BY_THE_TRAINER[""]
    found = [(key, did_you_mean(key, sorted(top))) for key in ds_config if key not in top]
    for section in (*CHECKED_BY_HAND, "vdsgen"):
        value = ds_config.get(section)
        known = READ_BY_THE_TRAINER.get(section, frozenset())
        if section in CHECKED_BY_HAND:
            known |= keys_that_are_read(f"/{section}")
        if isinstance(value, Mapping):
            found += [
                (f"{section}.{key}", did_you_mean(key, sorted(known))) for key in value if key not in known
            ]
    return found
