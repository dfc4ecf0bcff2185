"""Files with one JSON object a line, each of a step, written by rank 0 as a run goes on."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from vdsgen.files import write_atomically


def as_line(values: Mapping[str, Any]) -> str:
    """One line of JSON; a value that is not finite becomes null."""
    return json.dumps({key: _finite(value) for key, value in values.items()}, allow_nan=False) + "\n"


def _finite(value: Any) -> Any:
    if isinstance(value, list | tuple):
        return [_finite(one) for one in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


class LinesFile:
    """Appends; a line is in the file, whole, before the next step begins."""

    def __init__(self, path: Path, *, resumed_step: int) -> None:
        """Drops what an interrupted run wrote past the step that it is resumed from."""
        kept = [line for line in read_lines(path) if line["step"] <= resumed_step]
        write_atomically(path, "".join(json.dumps(line) + "\n" for line in kept).encode())
        self._stream = path.open("a", encoding="utf-8")

    def write(self, line: str) -> None:
        self._stream.write(line)
        self._stream.flush()

    def close(self) -> None:
        self._stream.close()


def read_lines(path: Path) -> list[dict[str, Any]]:
    """Every whole line of the file that is of a step, [] where there is none."""
    return list(_parsed(path.read_bytes().split(b"\n"))) if path.is_file() else []


def _parsed(lines: Sequence[bytes]) -> Iterator[dict[str, Any]]:
    """Leaves out the last line of a run that was killed as it wrote, and what else is no object of a step."""
    for line in lines:
        try:
            found = json.loads(line)
        except (ValueError, RecursionError):
            continue
        step = found.get("step") if isinstance(found, dict) else None
        if isinstance(step, int) and not isinstance(step, bool):
            yield found
