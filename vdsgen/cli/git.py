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
@click.option("--hook", is_flag=True, help="A pre-commit hook too, which refuses stale directories.")
def install_command(everywhere: bool, hook: bool) -> None:
    """Set up `git diff`, `git log -p --ext-diff` and `git difftool --tool=vdsgen`.

    Writes settings into git's configuration and patterns into .gitattributes, which can be committed: where
    the settings are missing, git shows the files as ever.
    """
    import shlex

    from vdsgen.review.git.hook import install_hook
    from vdsgen.review.git.install import DRIVER, install, program

    if hook and everywhere:
        raise click.UsageError("--hook is for one repository.")
    if hook:
        click.echo(f"{install_hook(Path(), shlex.join(program()))}: refuses stale directories")
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
    from vdsgen.review.git.hook import uninstall_hook
    from vdsgen.review.git.install import uninstall

    if not everywhere:
        uninstall_hook(Path())
    done = uninstall(_scope(everywhere), Path())
    click.echo(f"{done.configuration} and {done.attributes}: as before")


def _scope(everywhere: bool) -> Scope:
    return "global" if everywhere else "local"


@command.command("hook")
@click.option("--staged", is_flag=True, help="The files that git is about to commit.")
@click.argument("files", nargs=-1, type=click.Path(path_type=Path))
def hook_command(staged: bool, files: Sequence[Path]) -> None:
    """Check the rendered directories that FILES bear on: their own, and those that a vdsgen.yaml renders from
    them. What pre-commit and the hook of `vdsgen git install --hook` call. Exits as `vdsgen check` does.
    """
    from vdsgen.cli.check import plan_again
    from vdsgen.cli.progress import ProgressLine
    from vdsgen.errors import VdsgenError
    from vdsgen.review.git.hook import bears_on, staged_files
    from vdsgen.review.git.repository import Repository
    from vdsgen.review.trees.check import TreeCheck
    from vdsgen.review.trees.text import title_of, tree_text

    repository = Repository.around(Path())
    if staged and repository is None:
        raise VdsgenError(f"{Path().absolute()} is in no git repository")
    if staged and repository is not None:
        os.chdir(repository.root)
        files = [file.relative_to(repository.root) for file in staged_files(repository)]
    paths = bears_on(files, Path())
    if not paths:
        return
    progress = ProgressLine("Planning")
    try:
        tree = TreeCheck(plan_again, None, progress)(paths)
    finally:
        progress.erase()
    if not tree.fresh:
        click.echo(tree_text(tree, title_of(paths)), nl=False)
    click.get_current_context().exit(tree.exit_code)


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
