"""Writes the keys of the installed DeepSpeed, which `vdsgen lint` and rendering know them by.

    python -m tests.update_engine_schema

A test fails when the file is stale.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

FILE = Path(__file__).parent.parent / "vdsgen/catalog/data/deepspeed.json"


def schema_text() -> str:
    """The file's content: a line a key, so that a new release is a diff that can be read."""
    from tests.engine_schema import engine_schema

    return _text(engine_schema(), 0) + "\n"


def _text(value: Any, depth: int) -> str:
    if not isinstance(value, dict) or depth == 4 or not value:
        return json.dumps(value)
    inner = ",\n".join(
        f"{' ' * (depth + 1)}{json.dumps(key)}: {_text(v, depth + 1)}" for key, v in value.items()
    )
    return "{\n" + inner + "\n" + " " * depth + "}"


if __name__ == "__main__":
    os.environ["DS_ACCELERATOR"] = "cpu"
    FILE.write_text(schema_text())
