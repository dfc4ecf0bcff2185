"""A profile as the text that is committed: stable, and short enough to review."""

from __future__ import annotations

import json
from typing import Any

from pydantic import BaseModel

WIDTH = 110


def profile_text(profile: BaseModel) -> str:
    """JSON in the order of the fields, without what is None; what fits is on one line."""
    return _text(profile.model_dump(mode="json", exclude_none=True), 0) + "\n"


def _text(value: Any, depth: int) -> str:
    line = json.dumps(value, ensure_ascii=False, separators=(", ", ": "))
    if len(line) + depth <= WIDTH or not isinstance(value, dict | list) or not value:
        return line
    inner = " " * (depth + 1)
    if isinstance(value, dict):
        parts = [f"{inner}{json.dumps(key)}: {_text(one, depth + 1)}" for key, one in value.items()]
    else:
        parts = [inner + _text(one, depth + 1) for one in value]
    opening, closing = ("{", "}") if isinstance(value, dict) else ("[", "]")
    return opening + "\n" + ",\n".join(parts) + "\n" + " " * depth + closing
