"""Hashes of a checkpoint's files, made and compared by all ranks side by side."""

from __future__ import annotations

import os
from collections.abc import Mapping
from functools import partial
from pathlib import Path

from deepspeed import comm as dist

from vdsgen.errors import VdsgenError
from vdsgen.files import sync_directory, write_atomically
from vdsgen.model.agreement import everybodys, known_to_all
from vdsgen.model.console import is_first_rank, say_first
from vdsgen.spec.checkpoints import (
    RECORD,
    CheckpointRecord,
    damage,
    read_checkpoints,
    sha256_of,
    shared_out,
)
from vdsgen.spec.rendered import Rendered


def vouch(target: Path, step: int, rendered: Rendered, known: Mapping[str, str]) -> CheckpointRecord:
    """Writes the record: only then does the checkpoint count as one, and every file is on the disk.

    `known` are hashes of files that are there already; it may hold the rank's own only. Collective, after all
    ranks have written their files. Raises OSError on every rank where one fails."""
    hashes: dict[str, str] = {}
    for part in everybodys(lambda: dict(known)):
        hashes |= part
    sizes = known_to_all(lambda: _sizes_bytes(target))
    left = {name: size for name, size in sizes.items() if name not in hashes}
    mine = shared_out(left, dist.get_world_size())[dist.get_rank()]
    for part in everybodys(lambda: _flushed(target, mine)):
        hashes |= part
    record = CheckpointRecord(
        step=step,
        plan_sha256=rendered.plan_sha256,
        layout=rendered.layout,
        files=sizes,
        sha256={name: hashes[name] for name in sorted(sizes)},
    ).sealed()
    if is_first_rank():
        sync_directory(target)  # names of the files before that of the record
        write_atomically(target / RECORD, (record.model_dump_json(indent=2) + "\n").encode())
        sync_directory(target)
    return record


def last_sound(run: Path) -> tuple[Path, CheckpointRecord]:
    """The last complete checkpoint all of whose bytes are those that were written; every later one is named
    with what is wrong with it. Collective.

    Raises VdsgenError where there is none."""
    complete, incomplete = known_to_all(lambda: read_checkpoints(run))
    for sentence in incomplete:
        say_first(f"warning: skipped: {sentence}")
    ranks, rank = dist.get_world_size(), dist.get_rank()
    for folder, record in reversed(complete.items()):
        found = everybodys(partial(damage, folder, record, rank, ranks))
        damages = [sentence for sentence in found if sentence is not None]
        if not damages:
            return folder, record
        for sentence in damages:
            say_first(f"warning: skipped: {sentence}")
    raise VdsgenError(
        f"nothing to resume: {run} has no {'sound' if complete else 'complete'} checkpoint",
        remedy="start without --resume, into a new --output",
    )


def _sizes_bytes(target: Path) -> dict[str, int]:
    files = sorted(path for path in target.rglob("*") if path.is_file())
    return {str(path.relative_to(target)): path.stat().st_size for path in files}


def _flushed(target: Path, names: list[str]) -> dict[str, str]:
    """Hashes of these files, each written through to the disk."""
    hashes = {}
    for name in names:
        with (target / name).open("rb") as stream:
            os.fsync(stream.fileno())
        hashes[name] = sha256_of(target / name)
    return hashes
