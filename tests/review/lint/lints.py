"""Linting in one line, for tests."""

from __future__ import annotations

import json
from typing import Any

from vdsgen.review.lint.context import Context
from vdsgen.review.lint.finding import Finding, Linted
from vdsgen.review.lint.run import lint

GOOD: dict[str, Any] = {
    "train_batch_size": 8,
    "train_micro_batch_size_per_gpu": 1,
    "gradient_accumulation_steps": 2,
    "bf16": {"enabled": True},
    "zero_optimization": {"stage": 2, "overlap_comm": True},
    "optimizer": {"type": "AdamW", "params": {"lr": 1e-4, "torch_adam": True}},
    "gradient_clipping": 1.0,
}
"""In which nothing is to be found, on four ranks."""
FOUR = Context(world_size=4)


def linted(config: dict[str, Any] | str, context: Context = FOUR) -> Linted:
    text = config if isinstance(config, str) else json.dumps(config, indent=2)
    return lint(text.encode(), "ds_config.json", context)


def found(config: dict[str, Any] | str, context: Context = FOUR) -> tuple[Finding, ...]:
    return linted(config, context).findings


def with_changes(changes: dict[str, Any]) -> dict[str, Any]:
    """GOOD with values at JSON pointers changed, or taken out where the value is `...`."""
    config: dict[str, Any] = json.loads(json.dumps(GOOD))
    for pointer, value in changes.items():
        *sections, key = pointer.split("/")[1:]
        node = config
        for section in sections:
            node = node.setdefault(section, {})
        if value is ...:
            del node[key]
        else:
            node[key] = value
    return config
