"""Half-written checkpoints of starts that were killed as they saved, or as they deleted an old one."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

from vdsgen.spec.checkpoints import CHECKPOINTS, RECORD

TAG = re.compile(r"step-\d{8,}")


def remove_half_written(run: Path) -> list[Path]:
    """Returns what it has removed. Nothing can be read from them any more, and each takes the place of a
    whole one. Call it while nothing is saved, on one rank. Whole ones and those that are damaged stay."""
    folder = run / CHECKPOINTS
    found = sorted(folder.iterdir()) if folder.is_dir() else []
    halves = [
        entry
        for entry in found
        if TAG.fullmatch(entry.name)
        and entry.is_dir()
        and not entry.is_symlink()
        and not (entry / RECORD).exists()
    ]
    for half in halves:
        shutil.rmtree(half, ignore_errors=True)
    return halves
