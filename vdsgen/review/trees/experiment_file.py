"""Overrides written into an experiment as people wrote it: the rest of the file stays as it is."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from vdsgen.errors import VdsgenError
from vdsgen.review.adopt import override_lines
from vdsgen.spec.planned_keys import merged
from vdsgen.spec.yaml_source import parse_yaml

_BLOCK = re.compile(r"^overrides:.*(?:\n(?:[ \t].*|[ \t]*))*\n?", re.MULTILINE)
"""A top-level key and all lines below it that are indented or empty."""


def with_overrides(text: str, ds_config: Mapping[str, Any], file: str) -> str:
    """The text with these keys overridden. Raises VdsgenError where that cannot be done without touching more
    than the overrides, and says what to write."""
    root = parse_yaml(text, file).plain()
    known = root.get("overrides") if isinstance(root, dict) else None
    newline = "\r\n" if "\r\n" in text else "\n"
    plain = text.replace("\r\n", "\n")
    if known is None:
        blocks = list(_BLOCK.finditer(plain))
        own: Mapping[str, Any] = {}
    else:
        blocks = [match for match in _BLOCK.finditer(plain) if "#" not in match[0] and "&" not in match[0]]
        own = known.get("ds_config") or {} if isinstance(known, dict) else {}
        if len(blocks) != 1 or not isinstance(own, dict):
            raise _by_hand(ds_config, file)
    lines = "\n".join(override_lines(merged(own, ds_config)))
    if blocks:
        block = blocks[0]
        result = f"{plain[: block.start()]}{lines}\n{plain[block.end() :]}"
    else:
        result = f"{plain.rstrip()}\n\n{lines}\n"
    written = parse_yaml(result, file).plain()
    others = (
        {key: value for key, value in root.items() if key != "overrides"} if isinstance(root, dict) else {}
    )
    if written != {**others, "overrides": {"ds_config": merged(own, ds_config)}}:
        raise _by_hand(ds_config, file)
    return result.replace("\n", newline)


def _by_hand(ds_config: Mapping[str, Any], file: str) -> VdsgenError:
    lines = "\n".join(f"     {line}" for line in override_lines(ds_config))
    return VdsgenError(
        f"{file} has overrides of its own, written so that they cannot be added to by a program",
        remedy=f"write there by hand:\n{lines}",
    )
