"""`vdsgen validate`: predictions beside what others measured."""

from __future__ import annotations

from pathlib import Path

import click


@click.command()
@click.argument("csv", metavar="[CSV]", required=False, type=click.Path(dir_okay=False, path_type=Path))
@click.option(
    "--rows", metavar="LIST", help="Only these lines of the file, such as 2-50,60 (line 1 is the header)."
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
@click.option("--markdown", "as_markdown", is_flag=True, help="Print the tables of docs/published.md.")
def command(csv: Path | None, rows: str | None, as_json: bool, as_markdown: bool) -> None:
    """Predict each measurement in CSV with the planner's cost functions; default: those bundled with vdsgen.

    Prints the error of each row's memory and time, or why it cannot be predicted, and the medians. Needs
    torch: the layers are traced, which takes about half a minute.
    """
    import contextlib
    import sys
    from importlib.util import find_spec

    from vdsgen.errors import VdsgenError
    from vdsgen.published.compare import compared
    from vdsgen.published.row import BUNDLED, read_rows, selected

    if as_json and as_markdown:
        raise click.UsageError("--json or --markdown, not both.")
    if find_spec("torch") is None:
        raise VdsgenError("tracing needs torch, which is not installed", remedy="pip install 'vdsgen[train]'")
    chosen = selected(read_rows(csv or BUNDLED), rows)
    outcomes = []
    shown = sys.stderr.isatty()
    # DeepSpeed binds its log to what standard output is while it is imported; ours carries the result.
    with contextlib.redirect_stdout(sys.stderr):
        for count, outcome in enumerate(compared(chosen), start=1):
            outcomes.append(outcome)
            if shown:
                click.echo(f"\r{count} of {len(chosen)} rows", nl=False, err=True)
    if shown:
        click.echo("\r\033[K", nl=False, err=True)
    if as_json:
        import json

        from vdsgen.published.document import document

        click.echo(json.dumps(document(outcomes), indent=2))
        return
    from vdsgen.published.text import markdown, text

    click.echo(markdown(outcomes) if as_markdown else text(outcomes), nl=False)
