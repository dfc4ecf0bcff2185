"""`vdsgen diff`: what a change does to memory, speed and numerics."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from vdsgen.review.diff import Diff


@click.command()
@click.argument("old", metavar="OLD", type=click.Path(path_type=Path))
@click.argument("new", metavar="NEW", type=click.Path(path_type=Path))
@click.option(
    "--format",
    "form",
    type=click.Choice(["text", "markdown", "json"]),
    default="text",
    show_default=True,
    help="text for a terminal, markdown for a pull request, json for programs.",
)
@click.option(
    "--color",
    type=click.Choice(["auto", "always", "never"]),
    default="auto",
    show_default=True,
    help="auto: on a terminal, where NO_COLOR is not set.",
)
def command(old: Path, new: Path, form: str, color: str) -> None:
    """Compare OLD and NEW: rendered directories, or DeepSpeed JSON files of any origin.

    Settings that differ in effect, by what they affect: the engine's defaults are filled in and old names
    read as new ones. Whether it fits, is faster, changes the loss curve, and whether a run can go on; risks;
    predicted memory and time by part. Exits with 0 if they come to the same, with 1 if they differ, and with
    2 where a side cannot be read.
    """
    from vdsgen.review.diff import diff_sides
    from vdsgen.review.side import read_side

    result = diff_sides(read_side(old), read_side(new))
    click.echo(formatted(result, form, color), nl=False, color=color != "never")
    click.get_current_context().exit(0 if result.same else 1)


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


def is_coloured(color: str) -> bool:
    """Whether `--color` asks for colour on this output."""
    import os
    import sys

    if color == "auto":
        return sys.stdout.isatty() and not os.environ.get("NO_COLOR")
    return color == "always"
