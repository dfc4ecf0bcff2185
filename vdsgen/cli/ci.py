"""`vdsgen ci`: jobs that review configurations in pull and merge requests, and what these jobs run."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from vdsgen.review.ci.jobs import Service


@click.group()
def command() -> None:
    """Review configurations in pull and merge requests (docs/reviewing.md)."""


@command.command("github")
@click.option("--write", is_flag=True, help="Write the files below this directory, in the place of printing.")
def github(write: bool) -> None:
    """Workflows for GitHub Actions: one that reviews, one that comments."""
    _jobs("github", write=write)


@command.command("gitlab")
@click.option("--write", is_flag=True, help="Write the file below this directory, in the place of printing.")
def gitlab(write: bool) -> None:
    """A job for GitLab CI that reviews and comments."""
    _jobs("gitlab", write=write)


def _jobs(service: Service, *, write: bool) -> None:
    from vdsgen.errors import VdsgenError
    from vdsgen.files import write_atomically
    from vdsgen.review.ci.jobs import job_files

    files = job_files(service)
    if not write:
        click.echo("\n".join(f"# ---- {path}\n{text}" for path, text in files.items()), nl=False)
        return
    for name, text in files.items():
        if Path(name).is_symlink() or (Path(name).exists() and Path(name).read_text("utf-8") != text):
            raise VdsgenError(
                f"{name} is there and says something else", remedy="remove it first, or compare"
            )
    for name, text in files.items():
        write_atomically(Path(name), text.encode())
        click.echo(name)


@command.command("review")
@click.option("--base", required=True, metavar="REV", help="What the request is to be merged into.")
@click.option(
    "--out", required=True, metavar="FILE", type=click.Path(path_type=Path), help="Markdown to write."
)
@click.argument("paths", metavar="PATH...", nargs=-1, required=True, type=click.Path(path_type=Path))
def review(base: str, out: Path, paths: Sequence[Path]) -> None:
    """Check the trees at each PATH, compare them with where they parted from REV, and write both as Markdown.

    Exits as `vdsgen check` does: 1 where something is stale or was edited by hand. That something differs
    is no failure.
    """
    from vdsgen.cli.check import plan_again
    from vdsgen.cli.diff import formatted
    from vdsgen.cli.progress import ProgressLine
    from vdsgen.errors import VdsgenError
    from vdsgen.files import write_atomically
    from vdsgen.review.ci.review import review_markdown
    from vdsgen.review.git.sides import sides
    from vdsgen.review.trees.check import TreeCheck
    from vdsgen.review.trees.compare import compare
    from vdsgen.review.trees.diff_document import tree_diff_markdown
    from vdsgen.review.trees.document import tree_markdown
    from vdsgen.review.trees.text import counts, title_of

    if ".." in base or ":" in base:
        raise VdsgenError(f"--base {base!r} is no single revision")
    progress = ProgressLine("Planning")
    try:
        tree = TreeCheck(plan_again, None, progress)(paths)
    finally:
        progress.erase()
    asked = sides([f"{base}...HEAD", *map(str, paths)], Path())
    compared = compare(asked.old, asked.new, asked.title)
    page = review_markdown(
        tree_markdown(tree, title_of(paths)),
        tree_diff_markdown(compared, lambda diff: formatted(diff, "markdown")),
    )
    write_atomically(out, page.encode())
    click.echo(f"{title_of(paths)}: {counts(tree)}\n{out}: written")
    click.get_current_context().exit(max(tree.exit_code, 2 if compared.broken else 0))


@command.group("comment")
def comment() -> None:
    """Put a review under its pull or merge request, in the place of the one before."""


@comment.command("github")
@click.option("--number", required=True, metavar="N", help="The pull request.")
@click.option("--head", required=True, metavar="SHA", help="The commit that was reviewed.")
@click.argument("file", metavar="FILE", type=click.Path(path_type=Path))
def on_github(number: str, head: str, file: Path) -> None:
    """With GITHUB_TOKEN, in the repository that GITHUB_REPOSITORY names."""
    from vdsgen.review.ci.comment import comment_on_github

    done = comment_on_github(os.environ, number, head, _text(file))
    click.echo(f"pull request {number}: comment {done}")


@comment.command("gitlab")
@click.argument("file", metavar="FILE", type=click.Path(path_type=Path))
def on_gitlab(file: Path) -> None:
    """With VDSGEN_GITLAB_TOKEN, under the merge request of the pipeline."""
    from vdsgen.review.ci.comment import comment_on_gitlab

    click.echo(f"merge request: comment {comment_on_gitlab(os.environ, _text(file))}")


def _text(file: Path) -> str:
    from vdsgen.review.ci.comment import MOST_CHARACTERS

    with file.open("rb") as stream:
        return stream.read(8 * MOST_CHARACTERS).decode("utf-8", "replace")
