"""How each start of a run ended, beside what the trainer itself wrote of it in run.json."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from vdsgen.errors import VdsgenError
from vdsgen.files import write_atomically
from vdsgen.spec.run import read_json_object

FILE = "run.json"
METRICS = "metrics.jsonl"
LAST_BYTES = 65536
"""Of the metrics that are read for the last step; a line is far shorter."""


@dataclass(frozen=True, slots=True)
class Start:
    """One that has ended badly."""

    at: datetime
    known: int
    """Starts in run.json before this one."""
    metrics: tuple[int, int]
    """Which file the metrics are, and its size."""


def begin(run: Path) -> Start:
    return Start(datetime.now(UTC), len(_starts(_content(run))), _metrics(run))


def has_trained(run: Path, start: Start) -> bool:
    """Whether the start came to a step of its own, be it one that was made before."""
    entries = _starts(_content(run))[start.known :]
    began = entries[-1].get("from_step") if entries else None
    return isinstance(began, int) and _metrics(run) != start.metrics and last_step(run) > began


def record_end(run: Path, start: Start, end: str, reached_step: int) -> None:
    """Into run.json: what ended the start, and the last step in the metrics. One that ended before the
    trainer wrote of it gets an entry too. A disk that is full keeps no run from its restart."""
    content = _content(run)
    starts = _starts(content)
    if len(starts) <= start.known:
        starts.append({"at": start.at.isoformat(timespec="seconds"), "from_step": None})
    starts[-1] |= {
        "ended_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "end": end,
        "reached_step": reached_step,
    }
    content.setdefault("schema_version", 1)
    content["starts"] = starts
    try:
        write_atomically(run / FILE, (json.dumps(content, indent=2) + "\n").encode())
    except OSError:
        return


def last_step(run: Path) -> int:
    """Of the last whole line of the metrics; 0 where there is none."""
    try:
        with (run / METRICS).open("rb") as stream:
            stream.seek(max(0, stream.seek(0, 2) - LAST_BYTES))
            lines = stream.read().splitlines(keepends=True)
    except OSError:
        return 0
    for line in reversed(lines):
        if not line.endswith(b"\n"):
            continue
        try:
            return int(json.loads(line)["step"])
        except (ValueError, KeyError, TypeError, OverflowError, RecursionError):
            continue
    return 0


def _metrics(run: Path) -> tuple[int, int]:
    try:
        status = (run / METRICS).stat()
    except OSError:
        return 0, 0
    return status.st_ino, status.st_size


def _content(run: Path) -> dict[str, Any]:
    try:
        return read_json_object(run / FILE)
    except VdsgenError:
        return {}


def _starts(content: dict[str, Any]) -> list[dict[str, Any]]:
    starts = content.get("starts")
    whole = isinstance(starts, list) and all(isinstance(start, dict) for start in starts)
    return list(starts) if whole and starts else []
