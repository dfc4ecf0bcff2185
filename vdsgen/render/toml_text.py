"""TOML text of tables, one spelling for each value."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any


def toml_string(text: str) -> str:
    """A basic string: as JSON has them, but for the one control character that JSON leaves as it is."""
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")


def toml_value(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return toml_string(value)
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(map(toml_value, value)) + "]"
    if isinstance(value, float):
        return repr(value)  # 0.1, 1e-05: both are floats to TOML
    assert isinstance(value, int), f"TOML has no {type(value).__name__}"
    return str(value)


def toml_lines(table: Mapping[str, Any], comments: Mapping[str, str] | None = None) -> list[str]:
    """Keys of one table, each with its comment."""
    comments = comments or {}
    return [
        f"{key} = {toml_value(value)}" + (f"  # {comments[key]}" if key in comments else "")
        for key, value in table.items()
    ]
