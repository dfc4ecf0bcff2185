"""JSON and YAML text with one spelling for each value, so that equal inputs give equal bytes."""

from __future__ import annotations

import json
import re
from typing import Any

LOOKS_LIKE_A_NUMBER = re.compile(r"[-+]?(\.?[0-9]|\.(inf|nan))", re.IGNORECASE)
"""Strings that some YAML readers take for numbers (`1e5`, `0o17`, `12:30`); they are always quoted."""


def pretty_json(value: Any) -> str:
    """Indented by two, keys in the order given, short lists of numbers on one line, final newline.

    Raises ValueError where a number is not finite (JSON has no word for it).
    """
    return _json(value, "") + "\n"


def _json(value: Any, indent: str) -> str:
    inner = indent + "  "
    if isinstance(value, dict) and value:
        entries = [f"{inner}{_scalar(str(key))}: {_json(item, inner)}" for key, item in value.items()]
        return "{\n" + ",\n".join(entries) + f"\n{indent}}}"
    if isinstance(value, (list, tuple)) and value:
        if all(isinstance(item, (int, float)) for item in value):
            return "[" + ", ".join(_scalar(item) for item in value) + "]"
        return "[\n" + ",\n".join(inner + _json(item, inner) for item in value) + f"\n{indent}]"
    return _scalar(value)


def _scalar(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, allow_nan=False)


def pretty_yaml(value: Any) -> str:
    """Block style, keys in the order given, one line a string, strings quoted where in doubt."""
    import yaml

    class Dumper(yaml.SafeDumper):
        """Without anchors: a value that occurs twice is written twice."""

        def ignore_aliases(self, _data: Any) -> bool:
            return True

    def represent_text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
        # Only double quotes can hold line separators, of which Unicode has more than YAML writers know.
        style = '"' if not text.isprintable() else "'" if LOOKS_LIKE_A_NUMBER.match(text) else None
        return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)

    Dumper.add_representer(str, represent_text)
    text = yaml.dump(
        value, Dumper=Dumper, sort_keys=False, allow_unicode=True, default_flow_style=False, width=2**31 - 1
    )
    assert isinstance(text, str)
    return text
