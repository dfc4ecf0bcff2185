"""git as reviews call it: without a shell, without filters, hooks, pagers or programs of the repository."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

from vdsgen.errors import VdsgenError

SECONDS = 60.0
"""No call takes so long."""

SAFE = (
    "--no-pager",
    "--no-optional-locks",
    "--literal-pathspecs",
    "-c",
    "core.fsmonitor=false",
    "-c",
    "core.hooksPath=/dev/null",
    "-c",
    "protocol.allow=never",
)
"""A repository's own configuration can name programs: none of them is run. `protocol.allow`: no object is
fetched from anywhere (partial clones)."""


def environment() -> dict[str, str]:
    """Ours, where git asks nobody for anything and speaks no other language."""
    return {
        **os.environ,
        "LC_ALL": "C",
        "GIT_TERMINAL_PROMPT": "0",
        "GIT_OPTIONAL_LOCKS": "0",
        "GIT_NO_REPLACE_OBJECTS": "1",
        "GIT_NO_LAZY_FETCH": "1",
    }


def program() -> str:
    """Raises VdsgenError where there is no git."""
    found = shutil.which("git")
    if found is None:
        raise VdsgenError(
            "there is no git on PATH", remedy="install git, or compare directories by their paths"
        )
    return found


def run_git(
    folder: Path, arguments: Sequence[str], *, content: bytes | None = None
) -> subprocess.CompletedProcess[bytes]:
    """Whatever its status is. Raises VdsgenError where git cannot be started or does not end."""
    try:
        return subprocess.run(  # noqa: S603 - a list of arguments; revisions are checked before they come here
            [program(), *SAFE, *arguments],
            cwd=folder,
            input=content,
            stdin=subprocess.DEVNULL if content is None else None,
            capture_output=True,
            timeout=SECONDS,
            check=False,
            env=environment(),
        )
    except subprocess.TimeoutExpired as error:
        raise VdsgenError(f"git {arguments[0]} takes longer than {SECONDS:.0f} s in {folder}") from error
    except OSError as error:
        raise VdsgenError(f"git cannot be started in {folder}: {error.strerror}") from error


def git_output(folder: Path, arguments: Sequence[str], *, content: bytes | None = None) -> bytes:
    """Raises VdsgenError with git's own words where it fails."""
    result = run_git(folder, arguments, content=content)
    if result.returncode != 0:
        raise VdsgenError(f"git {arguments[0]}: {words_of(result.stderr)}")
    return result.stdout


def words_of(errors: bytes) -> str:
    """Git's message in one line, without what a terminal would obey."""
    text = " ".join(errors.decode("utf-8", "replace").split()).removeprefix("fatal: ")
    return "".join(character if character.isprintable() else "?" for character in text)[:400] or "failed"
