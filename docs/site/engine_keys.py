"""The page of the DeepSpeed settings that rendered directories hold, as the examples show them."""

from __future__ import annotations

import ast
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from docs.site.markdown import code, docstring, table

HEAD = """\
# Keys of ds_config.json

Every key that the rendered examples hold, with its values there and DeepSpeed's own type and default (release
{release}, from `vdsgen/catalog/data/deepspeed.json`, which `vdsgen lint` checks with). Only what applies is written
([Rendered directories](../rendering.md)). Keys without a type of DeepSpeed's are read by this project's trainer or by the
engine's parts themselves.

"""
SECTIONS = """
## Why they are as they are

From the functions that render each section (`vdsgen/render/engine_config.py`).
"""
SHOWN_VALUES = 4
"""Different values of one key that a row shows."""


def engine_key_page(root: Path) -> dict[str, str]:
    """By path below the site's sources."""
    known = json.loads((root / "vdsgen/catalog/data/deepspeed.json").read_text("utf-8"))
    values: dict[str, list[str]] = {}
    for path in sorted(root.glob("examples/rendered/*/ds_config.json")):
        for key, value in _leaves(json.loads(path.read_text("utf-8"))):
            shown = json.dumps(value)
            if shown not in values.setdefault(key, []):
                values[key].append(shown)
    rows = [(code(key), *_engine(key, known["sections"]), _values(found)) for key, found in values.items()]
    text = HEAD.format(release=known["deepspeed"]) + table(
        ["key", "type", "DeepSpeed's default", "in the examples"], rows
    )
    return {"reference/ds_config.md": text + SECTIONS + _functions(root / "vdsgen/render/engine_config.py")}


def _leaves(value: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, inner in value.items():
        path = f"{prefix}{key}"
        if isinstance(inner, dict):
            yield from _leaves(inner, f"{path}.")
        else:
            yield path, inner


def _engine(key: str, sections: Mapping[str, Any]) -> tuple[str, str]:
    """DeepSpeed's type and default of a key."""
    section, _, last = key.rpartition(".")
    path = "/" + section.replace(".", "/") if section else ""
    found = sections.get(path, {}).get("keys", {}).get(last)
    if found is None:
        return "", ""
    kind = " or ".join(map(str, found["choices"])) if "choices" in found else str(found.get("type", ""))
    return code(kind), code(json.dumps(found["default"])) if found.get("default") is not None else ""


def _values(found: list[str]) -> str:
    more = ", ..." if len(found) > SHOWN_VALUES else ""
    return ", ".join(map(code, found[:SHOWN_VALUES])) + more


def _functions(source: Path) -> str:
    parts = []
    for node in ast.parse(source.read_text("utf-8")).body:
        if isinstance(node, ast.FunctionDef) and (says := ast.get_docstring(node)):
            parts.append(f"\n### {node.name}\n\n{docstring(says)}")
    return "".join(parts)
