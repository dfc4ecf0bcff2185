"""A lab file's text from its pools, as a person would write it."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from vdsgen.scan.pools import PoolText
from vdsgen.scan.said import Said

WIDTH = 110
"""Comments that would reach further stand in lines of their own."""

PLAIN = re.compile(r"[A-Za-z/][A-Za-z0-9._/-]*")
"""Strings that YAML takes for what they are."""
WORDS = frozenset({"true", "false", "null", "yes", "no", "on", "off", "y", "n"})


def lab_text(pools: Sequence[PoolText], heading: Sequence[str]) -> str:
    """YAML, comments first."""
    lines = [*(line for text in heading for line in _comment(text, "")), "pools:"]
    for pool in pools:
        lines += _pool(pool)
    return "\n".join(lines) + "\n"


def lab_values(pools: Sequence[PoolText]) -> dict[str, Any]:
    """The same without comments."""
    return {"pools": [_plain(pool.keys) for pool in pools]}


def _plain(value: Any) -> Any:
    if isinstance(value, Said):
        return _plain(value.value)
    if isinstance(value, Mapping):
        return {key: _plain(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(inner) for inner in value]
    return value


def _pool(pool: PoolText) -> list[str]:
    lines = [line for remark in pool.remarks for line in _comment(remark, "  ")]
    entries: list[tuple[str, str]] = []
    for key, said in pool.keys.items():
        start = "  - " if not entries else "    "
        if key == "groups":
            entries.append((f"{start}groups:", said.comment))
            entries += [(f"      - {_flow(group)}", "") for group in said.value]
        elif said.inside:
            entries.append((f"{start}{key}:", said.comment))
            comments = dict(said.inside)
            entries += [
                (f"      {inner}: {_flow(value)}", comments.get(inner, ""))
                for inner, value in said.value.items()
            ]
        else:
            entries.append((f"{start}{key}: {_flow(said)}", said.comment))
    return lines + _aligned(entries)


def _aligned(entries: Sequence[tuple[str, str]]) -> list[str]:
    """Comments in one column, where they have room."""
    beside = [text for text, comment in entries if comment and len(text) <= WIDTH // 3]
    column = max(map(len, beside), default=0) + 2
    lines = []
    for text, comment in entries:
        placed = f"{text.ljust(column)}# {comment}" if len(text) < column else f"{text}  # {comment}"
        if not comment:
            lines.append(text)
        elif len(placed) <= WIDTH:
            lines.append(placed)
        elif text.startswith("  - "):
            lines += [text, *_comment(comment, "    ")]
        else:
            indent = " " * (len(text) - len(text.lstrip()))
            lines += [*_comment(comment, indent), text]
    return lines


def _comment(text: str, indent: str) -> list[str]:
    """Wrapped at words; a word that is too long for a line has its own."""
    lines, line = [], f"{indent}#"
    for word in text.split():
        if len(line) + 1 + len(word) > WIDTH and line != f"{indent}#":
            lines.append(line)
            line = f"{indent}#"
        line += f" {word}"
    return [*lines, line]


def _flow(value: Any) -> str:
    value = _plain(value)
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{key}: {_flow(inner)}" for key, inner in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_flow, value)) + "]"
    if isinstance(value, str):
        plain = PLAIN.fullmatch(value) and value.lower() not in WORDS
        return value if plain else json.dumps(value)
    return f"{value:g}" if isinstance(value, float) and value.is_integer() else str(value)
