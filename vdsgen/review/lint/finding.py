"""What lint says about one place of a config."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple

from vdsgen.review.lint.document import Document, Place, pointer

Level = Literal["error", "warning", "note"]
"""error: DeepSpeed refuses the config, or training stops at it. warning: it takes the config, and something
in it does nothing, does something else, or hurts. note: worth knowing; not counted as a finding."""

Operation = Mapping[str, Any]
"""One operation of a JSON patch (RFC 6902)."""


class Finding(NamedTuple):
    """One thing found, in one place."""

    check: str
    """Id of a rule (docs/rules.md) or of one of lint's own checks."""
    level: Level
    message: str
    place: Place
    pointer: str
    """JSON pointer of the key; "" for the whole config."""
    remedy: str | None = None
    source: str | None = None
    """Where in the engine it comes from: a file below `deepspeed/` and a line, or a file of this project."""
    fix: tuple[Operation, ...] = ()
    """A JSON patch after which it is no longer found; empty where no change is certain."""


class Linted(NamedTuple):
    """A file and what was found in it, in the order of the file."""

    document: Document
    findings: tuple[Finding, ...]

    def count(self, level: Level) -> int:
        return sum(finding.level == level for finding in self.findings)


def finding_at(
    document: Document,
    path: Sequence[str | int],
    check: str,
    level: Level,
    message: str,
    *,
    remedy: str | None = None,
    source: str | None = None,
    fix: Sequence[Operation] = (),
    at_key: bool = False,
) -> Finding:
    """A finding at the value (or the key) of `path`, or at what is nearest to where it would stand."""
    place = document.nearest(path, at_key=at_key)
    return Finding(check, level, message, place, pointer(path), remedy, source, tuple(fix))


def remove(path: Sequence[str | int]) -> Operation:
    return {"op": "remove", "path": pointer(path)}


def replace(path: Sequence[str | int], value: Any) -> Operation:
    return {"op": "replace", "path": pointer(path), "value": value}


def move(path: Sequence[str | int], name: str) -> Operation:
    """Gives the key at `path` another name."""
    return {"op": "move", "from": pointer(path), "path": pointer((*path[:-1], name))}
