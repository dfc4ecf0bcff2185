"""git taught to show rendered directories: a diff driver, a difftool and attributes, and untaught again."""

from __future__ import annotations

import os
import shlex
import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from vdsgen.errors import VdsgenError
from vdsgen.files import write_atomically
from vdsgen.review.git.command import git_output, run_git
from vdsgen.review.git.repository import Repository

DRIVER = "vdsgen"
"""What git calls the driver and the tool."""
FILES = ("plan.json", "ds_config.json", "train.yaml", "PLAN.md")
"""Of a rendered directory, whose changes the driver shows; the others are short, and shown by git itself."""
BEGIN = "# vdsgen: rendered directories (vdsgen git uninstall takes these lines away)"
END = "# vdsgen: end"
Scope = Literal["local", "global"]


@dataclass(frozen=True, slots=True)
class Installed:
    """What was changed."""

    configuration: str
    """`git config --local` or `--global`."""
    attributes: Path


def install(scope: Scope, here: Path) -> Installed:
    """Settings into the repository's or the user's configuration, patterns into .gitattributes or the user's
    file of attributes. Doing it twice changes nothing more. Raises VdsgenError or OSError."""
    attributes = _attributes(scope, here)
    command = shlex.join(program())
    for key, value in (
        (f"diff.{DRIVER}.command", f"{command} git show-file"),
        (f"difftool.{DRIVER}.cmd", f'{command} git show-file --tool "$MERGED" "$LOCAL" "$REMOTE"'),
        (f"difftool.{DRIVER}.prompt", "false"),
    ):
        git_output(here, ["config", f"--{scope}", "--replace-all", key, value])
    text = _without_ours(_read(attributes))
    lines = [BEGIN, *(f"{name} diff={DRIVER}" for name in FILES), END]
    write_atomically(attributes, (text + "".join(f"{line}\n" for line in lines)).encode())
    return Installed(f"git config --{scope}", attributes)


def uninstall(scope: Scope, here: Path) -> Installed:
    """Takes away what `install` put there, and nothing else."""
    attributes = _attributes(scope, here)
    for section in (f"diff.{DRIVER}", f"difftool.{DRIVER}"):
        run_git(here, ["config", f"--{scope}", "--remove-section", section])
    text = _read(attributes)
    left = _without_ours(text)
    if left != text:
        if left:
            write_atomically(attributes, left.encode())
        else:
            attributes.unlink()
    return Installed(f"git config --{scope}", attributes)


def program() -> Sequence[str]:
    """How this vdsgen is called: by its name where that is the one on PATH."""
    found, own = shutil.which("vdsgen"), Path(sys.executable).parent / "vdsgen"
    if found is not None and own.exists() and Path(found).samefile(own):
        return ("vdsgen",)
    return (sys.executable, "-m", "vdsgen")


def _attributes(scope: Scope, here: Path) -> Path:
    if scope == "local":
        repository = Repository.around(here)
        if repository is None or repository.is_bare:
            raise VdsgenError(
                f"{here.absolute()} is in no git repository with a working tree",
                remedy="run it in one, or for all of yours with --global",
            )
        return repository.root / ".gitattributes"
    named = run_git(here, ["config", "--global", "--path", "--get", "core.attributesFile"])
    if named.returncode == 0 and named.stdout.strip():
        return Path(named.stdout.decode("utf-8", "surrogateescape").removesuffix("\n"))
    return _default_attributes()


def _default_attributes() -> Path:
    """Where git looks unless told otherwise (gitattributes(5))."""
    folder = os.environ.get("XDG_CONFIG_HOME") or str(Path.home() / ".config")
    return Path(folder) / "git" / "attributes"


def _read(path: Path) -> str:
    if path.is_symlink():
        raise VdsgenError(
            f"{path} is a symbolic link", remedy=f"write it by hand: {FILES[0]} diff={DRIVER}, ..."
        )
    return path.read_text("utf-8") if path.exists() else ""


def _without_ours(text: str) -> str:
    if BEGIN not in text:
        return text if not text or text.endswith("\n") else f"{text}\n"
    head, _, rest = text.partition(f"{BEGIN}\n")
    _, _, tail = rest.partition(f"{END}\n")
    return head + tail
