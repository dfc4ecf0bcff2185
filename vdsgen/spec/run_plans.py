"""The plans that a run has been trained by: its own copies, since rendered directories are rewritten."""

from __future__ import annotations

from pathlib import Path

from vdsgen.errors import VdsgenError
from vdsgen.files import write_atomically
from vdsgen.spec.checkpoints import CheckpointRecord
from vdsgen.spec.rendered import NEEDED, Rendered, read_rendered

PLANS = "plans"
"""Folder of a run directory; holds folders 1, 2, ..., each a rendered directory."""
COPIED = (*NEEDED, "launch.sh", "PLAN.md")


def recorded_plans(run: Path) -> list[Path]:
    """The first one first."""
    found = _numbered(run / PLANS)
    whole = [entry for entry in found if all((entry / name).is_file() for name in NEEDED)]
    return sorted(whole, key=lambda entry: int(entry.name))


def next_plan(run: Path) -> Path:
    """Where the next one goes: nothing is there."""
    folder = run / PLANS
    taken = [int(entry.name) for entry in _numbered(folder)]
    return folder / str(max(taken, default=0) + 1)


def _numbered(folder: Path) -> list[Path]:
    return [entry for entry in folder.iterdir() if entry.name.isdecimal()] if folder.is_dir() else []


def record_plan(run: Path, rendered: Path) -> Path:
    """Copies a rendered directory, unless the run has all that training reads of it already; returns the
    copy's folder. Raises OSError."""
    contents = {name: (rendered / name).read_bytes() for name in COPIED if (rendered / name).is_file()}
    for folder in reversed(recorded_plans(run)):
        if all((folder / name).read_bytes() == contents[name] for name in NEEDED):
            return folder
    folder = next_plan(run)
    for name, content in contents.items():
        write_atomically(folder / name, content, executable=name == "launch.sh")
    return folder


def plan_of_checkpoint(run: Path, record: CheckpointRecord) -> Rendered | None:
    """The recorded plan that a checkpoint was written under; None in runs of versions that kept none."""
    for folder in reversed(recorded_plans(run)):
        try:
            rendered = read_rendered(folder)
        except VdsgenError:
            continue
        if rendered.plan_sha256 == record.plan_sha256 and rendered.layout == record.layout:
            return rendered
    return None
