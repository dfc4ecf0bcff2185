"""`vdsgen diff`: what a change does to memory, speed and numerics."""

from __future__ import annotations

from pathlib import Path

import click


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
def command(old: Path, new: Path, form: str) -> None:
    """Compare two rendered directories, OLD and NEW.

    Settings that differ, by what they affect, and the predicted change of peak memory, speed and effective
    batch. Exits with 0 if they say the same, with 1 if they differ.
    """
    from vdsgen.review.diff import as_json, diff_sides
    from vdsgen.review.side import read_side

    result = diff_sides(read_side(old), read_side(new))
    if form == "json":
        from vdsgen.render.serialise import pretty_json

        click.echo(pretty_json(as_json(result)), nl=False)
    else:
        from vdsgen.review.diff_text import as_markdown, as_text

        click.echo(as_text(result) if form == "text" else as_markdown(result), nl=False)
    click.get_current_context().exit(0 if result.same else 1)
