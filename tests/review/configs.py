"""Plain DeepSpeed configs to compare."""

from __future__ import annotations

import json
from typing import Any

from vdsgen.review.changes import Change
from vdsgen.review.diff import Diff, diff_sides
from vdsgen.review.side import plain_config

BASE: dict[str, Any] = {
    "train_batch_size": 32,
    "train_micro_batch_size_per_gpu": 4,
    "gradient_accumulation_steps": 2,
    "gradient_clipping": 1.0,
    "bf16": {"enabled": True},
    "zero_optimization": {"stage": 2},
    "optimizer": {"type": "AdamW", "params": {"lr": 1e-4, "weight_decay": 0.01}},
}
ABSENT = object()


def config(**sections: Any) -> dict[str, Any]:
    """`BASE` with these sections in the place of its own; ABSENT takes one out."""
    return {key: value for key, value in {**BASE, **sections}.items() if value is not ABSENT}


def diff_of(old: dict[str, Any], new: dict[str, Any]) -> Diff:
    sides = [plain_config(name, json.dumps(one).encode()) for name, one in (("a.json", old), ("b.json", new))]
    return diff_sides(*sides)


def change(result: Diff, key: str) -> Change:
    return next(one for one in result.changes if one.key == key)


def shown_keys(result: Diff) -> set[str]:
    return {one.key for one in result.shown}
