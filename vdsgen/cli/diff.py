"""`vdsgen diff`: what a change does to memory, speed and numerics."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from vdsgen.cli.options import review_options

if TYPE_CHECKING:
    from vdsgen.review.diff import Diff
    from vdsgen.review.trees.compare import TreeDiff


@click.command()
@click.argument("sides", metavar="[OLD NEW | REVISIONS [PATH...]]", nargs=-1, type=click.Path())
@review_options
@click.option(
    "--color",
    type=click.Choice(["auto", "always", "never"]),
    default="auto",
    show_default=True,
    help="auto: on a terminal, where NO_COLOR is not set.",
)
@click.option("-v", "--verbose", is_flag=True, help="Of whole trees, leave nothing out.")
def command(sides: Sequence[str], form: str, as_json: bool, color: str, verbose: bool) -> None:
    """Compare OLD and NEW: rendered directories, DeepSpeed JSON files of any origin, or whole trees of both;
    each a path, or REVISION:PATH of a git repository. Or what git calls REVISIONS: A..B, A...B (since they
    parted), A B, or A alone, against the working tree; without any, HEAD.

    Settings that differ in effect, by what they affect: the engine's defaults are filled in and old names
    read as new ones. Whether it fits, is faster, changes the loss curve, and whether a run can go on; risks;
    predicted memory and time by part. Directories that were moved are paired by what is in them. Exits with
    0 if both come to the same, with 1 if they differ, and with 2 where a side cannot be read.
    """
    from vdsgen.cli.progress import ProgressLine
    from vdsgen.review.git.sides import sides as sides_of
    from vdsgen.review.trees.compare import compare

    asked = sides_of(sides, Path())
    progress = ProgressLine("Comparing")
    try:
        result = compare(asked.old, asked.new, asked.title, progress)
    finally:
        progress.erase()
    if result.error is not None:
        raise result.error
    form = "json" if as_json else form
    if result.single is not None:
        text = formatted(result.single, form, color)
    else:
        text = formatted_tree(result, form, color, verbose=verbose)
    click.echo(text, nl=False, color=color != "never")
    click.get_current_context().exit(result.exit_code)


def formatted(result: Diff, form: str, color: str = "auto") -> str:
    """As `--format` and `--color` ask for."""
    if form == "json":
        from vdsgen.render.serialise import pretty_json
        from vdsgen.review.diff_json import as_json

        return pretty_json(as_json(result))
    if form == "markdown":
        from vdsgen.review.diff_markdown import as_markdown

        return as_markdown(result)
    from vdsgen.review.diff_text import as_text

    return as_text(result, colour=is_coloured(color))


def formatted_tree(result: TreeDiff, form: str, color: str, *, verbose: bool) -> str:
    """The same of many pairs."""
    if form == "json":
        from vdsgen.render.serialise import pretty_json
        from vdsgen.review.trees.diff_document import tree_diff_document

        return pretty_json(tree_diff_document(result))
    if form == "markdown":
        from vdsgen.review.trees.diff_document import tree_diff_markdown

        return tree_diff_markdown(result, lambda diff: formatted(diff, "markdown"))
    from vdsgen.review.trees.diff_text import tree_diff_text

    return tree_diff_text(result, colour=is_coloured(color), verbose=verbose)


def is_coloured(color: str) -> bool:
    """Whether `--color` asks for colour on this output."""
    import os
    import sys

    if color == "auto":
        return sys.stdout.isatty() and not os.environ.get("NO_COLOR")
    return color == "always"
