"""`vdsgen git`: git taught to show changes of rendered directories, and the hooks that keep them fresh."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from vdsgen.review.git.install import Scope


@click.group()
def command() -> None:
    """Teach git to show what a change of a rendered directory does, and to keep stale ones out."""


scope_option = click.option(
    "--global/--local",
    "everywhere",
    default=False,
    help="For all of your repositories, or (unless given) for this one.",
)


@command.command("install")
@scope_option
def install_command(everywhere: bool) -> None:
    """Set up `git diff`, `git log -p --ext-diff` and `git difftool --tool=vdsgen`.

    Writes settings into git's configuration and patterns into .gitattributes, which can be committed: where
    the settings are missing, git shows the files as ever.
    """
    from vdsgen.review.git.install import DRIVER, install

    done = install(_scope(everywhere), Path())
    click.echo(
        f"{done.configuration}: diff.{DRIVER}, difftool.{DRIVER}\n{done.attributes}: which files they are for"
    )
    click.echo(
        "git diff, git log -p --ext-diff, git show --ext-diff and git difftool --tool=vdsgen now use it"
    )


@command.command("uninstall")
@scope_option
def uninstall_command(everywhere: bool) -> None:
    """Take away what `vdsgen git install` put there."""
    from vdsgen.review.git.install import uninstall

    done = uninstall(_scope(everywhere), Path())
    click.echo(f"{done.configuration} and {done.attributes}: as before")


def _scope(everywhere: bool) -> Scope:
    return "global" if everywhere else "local"


@command.command("show-file", hidden=True)
@click.option("--tool", is_flag=True, help="Called as a difftool: PATH OLD NEW.")
@click.argument("arguments", nargs=-1, type=click.Path())
def show_file(tool: bool, arguments: Sequence[str]) -> None:
    """What git calls for each file: PATH OLD OLD-OID OLD-MODE NEW NEW-OID NEW-MODE (git(1),
    GIT_EXTERNAL_DIFF), with two more where the file was renamed."""
    from vdsgen.review.git.driver import shown
    from vdsgen.review.git.repository import Repository

    if len(arguments) < (3 if tool else 1):
        raise click.UsageError("this is what git calls; `vdsgen git install` sets it up")
    if not tool and len(arguments) < 7:
        click.echo(f"* Unmerged path {arguments[0]}")
        return
    path, old = arguments[0], Path(arguments[1])
    new = Path(arguments[2] if tool else arguments[4])
    number = int(os.environ.get("GIT_DIFF_PATH_TOTAL") or 1) if not tool else 2
    repository = Repository.around(Path())
    if repository is not None and tool and not repository.is_bare:
        path = repository.relative(Path(path)).as_posix()
    found = shown(path, _content(old), _content(new), repository, number)
    if found.diff is not None:
        from vdsgen.cli.diff import formatted

        coloured = (
            "always" if os.environ.get("GIT_PAGER_IN_USE") and not os.environ.get("NO_COLOR") else "auto"
        )
        click.echo(formatted(found.diff, "text", coloured), color=True)
    else:
        click.echo(found.text, nl=False)


def _content(path: Path) -> bytes | None:
    """None for the file that is not there."""
    return None if str(path) == os.devnull or not path.is_file() else path.read_bytes()
