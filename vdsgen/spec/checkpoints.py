"""Checkpoints of a run directory: what each is, whether it is whole, and whether its bytes are sound."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Literal

from pydantic import ValidationError

from vdsgen.spec.base import NonNegativeInt, Spec
from vdsgen.spec.run import Layout
from vdsgen.spec.shown import shown
from vdsgen.spec.source import dotted

CHECKPOINTS = "checkpoints"
"""Folder of a run directory; holds one folder a checkpoint, and `latest`."""
RECORD = "complete.json"
"""Written into a checkpoint's folder last: a folder without it was interrupted while it was written."""


class CheckpointRecord(Spec):
    """`complete.json` of a checkpoint: what it is, and the files that must be there."""

    schema_version: Literal[1] = 1
    step: NonNegativeInt
    plan_sha256: str
    layout: Layout
    files: dict[str, NonNegativeInt]
    """Size in bytes of each file, by its path within the checkpoint's folder."""
    sha256: dict[str, str] | None = None
    """Of each file, hexadecimal; None: of a version that did not hash."""
    record_sha256: str | None = None
    """Of all other keys (`seal_of`): an altered step or layout is found as an altered file is. None: of a
    version that did not seal."""

    def sealed(self) -> CheckpointRecord:
        return self.model_copy(update={"record_sha256": seal_of(self.model_dump(mode="json"))})


def seal_of(record: Mapping[str, object]) -> str:
    """SHA-256 of what a record's file says, whatever its spacing. Versions that know more keys, or other
    defaults, come to the same."""
    others = {key: value for key, value in record.items() if key != "record_sha256"}
    return hashlib.sha256(json.dumps(others, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def tag_of(step: int) -> str:
    """The folder that holds the checkpoint of `step`; sorts by step."""
    return f"step-{step:08d}"


def read_checkpoints(run: Path) -> tuple[dict[Path, CheckpointRecord], list[str]]:
    """The complete checkpoints of a run directory in order of their steps, and a sentence for each other one.

    A checkpoint is complete when its record is there and every file that the record names has the size
    that it names. `damage` looks into the files besides.
    """
    complete: dict[Path, CheckpointRecord] = {}
    incomplete: list[str] = []
    folder = run / CHECKPOINTS
    for entry in sorted(folder.iterdir()) if folder.is_dir() else []:
        if not entry.is_dir():
            continue
        record = _read_record(entry)
        if isinstance(record, str):
            incomplete.append(record)
        else:
            complete[entry] = record
    return dict(sorted(complete.items(), key=lambda item: item[1].step)), incomplete


def _read_record(folder: Path) -> CheckpointRecord | str:
    try:
        if not (folder / RECORD).is_file():  # whoever opens a pipe waits
            return f"{folder} is half written (no {RECORD})"
        content = (folder / RECORD).read_bytes()
        record = CheckpointRecord.model_validate_json(content)
    except ValidationError as error:
        return f"{folder} cannot be read: {RECORD}: {_first_of(error)}"
    except OSError as error:
        return f"{folder} cannot be read: {error}"
    if record.record_sha256 not in (None, seal_of(json.loads(content))):
        return f"{folder} is damaged ({RECORD}: other bytes than were written)"
    for name, size_bytes in record.files.items():
        if not _lies_within(name):
            return (
                f"{folder} cannot be read: {RECORD} names {shown(name)}, which is no file of the checkpoint's"
            )
        try:
            path = folder / name
            found = path.stat().st_size if path.is_file() else None
        except OSError as error:
            return f"{folder} cannot be read: {error.strerror} ({shown(name)})"
        if found != size_bytes:
            state = "missing" if found is None else f"{found} bytes"
            return f"{folder} is damaged ({name}: {state}, should be {size_bytes} bytes)"
    return record


def _first_of(error: ValidationError) -> str:
    """In one line; pydantic's own words hold what was written there, as long as it is."""
    first = error.errors(include_url=False, include_input=False)[0]
    place = dotted(first["loc"])
    return f"{place}: {first['msg']}" if place else str(first["msg"])


def _lies_within(name: str) -> bool:
    """Whether a path that a record names leads nowhere but into the checkpoint's folder."""
    path = PurePosixPath(name)
    return bool(path.parts) and not path.is_absolute() and ".." not in path.parts and "\0" not in name


def damage(folder: Path, record: CheckpointRecord, share: int = 0, shares: int = 1) -> str | None:
    """A sentence on the first file whose bytes are not those that were written, None where there is none.

    Hashing takes about a second a GB: of `shares` ranks, each calls this with its own `share`."""
    for name in shared_out(record.files, shares)[share]:
        expected = (record.sha256 or {}).get(name)
        try:
            found = sha256_of(folder / name)
        except OSError as error:
            return f"{folder} cannot be read: {error}"
        if expected is not None and found != expected:
            return f"{folder} is damaged ({name}: other bytes than were written)"
    return None


def shared_out(sizes_bytes: Mapping[str, int], shares: int) -> list[list[str]]:
    """Names in `shares` lists of about as many bytes each: the largest first, each to the list that has
    least. The same for every rank that asks."""
    lists: list[list[str]] = [[] for _ in range(shares)]
    loads = [0] * shares
    for name in sorted(sizes_bytes, key=lambda name: (-sizes_bytes[name], name)):
        least = loads.index(min(loads))
        lists[least].append(name)
        loads[least] += sizes_bytes[name]
    return lists


def sha256_of(path: Path) -> str:
    """Of a file's bytes, hexadecimal. Raises OSError."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
