"""Whether git could give a file back."""

from __future__ import annotations

from pathlib import Path

from vdsgen.errors import VdsgenError
from vdsgen.review.git.command import run_git


def held_by_git(path: Path) -> bool:
    """Whether the file is committed exactly as it is. False where there is no repository, or no git."""
    try:
        tracked = run_git(path.parent, ["ls-files", "--error-unmatch", "-z", "--", path.name])
        if tracked.returncode != 0:
            return False
        committed = run_git(path.parent, ["cat-file", "blob", f"HEAD:./{path.name}"])
        return committed.returncode == 0 and committed.stdout == path.read_bytes()
    except (VdsgenError, OSError):
        return False
