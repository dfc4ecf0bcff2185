"""One input and the commands that read it."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

Argv = tuple[str, ...]
"""What follows `vdsgen`; where the first word starts with `@`, the name of a reader (readers.py) and its
arguments."""


@dataclass(frozen=True)
class Case:
    """Files below a working directory of its own, and commands that run there one after the other."""

    kind: str
    files: Mapping[str, bytes]
    """Relative path -> content."""
    commands: tuple[Argv, ...]
    links: Mapping[str, str] = field(default_factory=dict)
    """Relative path -> where a symbolic link points, as it is written."""
    pipes: tuple[str, ...] = ()
    """Named pipes: whoever opens one for reading waits for ever."""
    named: tuple[str, ...] = ()
    """A refusal names one of these: the files that are not as they should be."""
    checks_output: bool = False
    """What was rendered into `out` is parsed, and its scripts are run with stand-ins for every program."""


def as_json(case: Case) -> str:
    """For a file that people read: text stays text."""
    document: dict[str, Any] = {
        "kind": case.kind,
        "commands": case.commands,
        "files": {name: _written(content) for name, content in case.files.items()},
    }
    for key in ("links", "pipes", "named", "checks_output"):
        if getattr(case, key):
            document[key] = getattr(case, key)
    return json.dumps(document, indent=1) + "\n"


def from_json(text: str) -> Case:
    document = json.loads(text)
    return Case(
        kind=document["kind"],
        commands=tuple(tuple(argv) for argv in document["commands"]),
        files={name: _read(content) for name, content in document["files"].items()},
        links=document.get("links", {}),
        pipes=tuple(document.get("pipes", ())),
        named=tuple(document.get("named", ())),
        checks_output=document.get("checks_output", False),
    )


def _written(content: bytes) -> Any:
    try:
        return content.decode("utf-8").split("\n")
    except UnicodeDecodeError:
        return {"base64": base64.b64encode(content).decode()}


def _read(content: Any) -> bytes:
    if isinstance(content, dict):
        return base64.b64decode(content["base64"])
    return "\n".join(content).encode()


def write_below(folder: Path, case: Case) -> None:
    """Makes the case's files, links and pipes."""
    import os

    for name, content in case.files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    for name, target in case.links.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).unlink(missing_ok=True)
        (folder / name).symlink_to(target)
    for name in case.pipes:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).unlink(missing_ok=True)
        os.mkfifo(folder / name)
