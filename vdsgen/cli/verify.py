"""`vdsgen verify`: run every stage of a plan on tensors without memory, and compare bytes."""

from __future__ import annotations

from pathlib import Path

import click


@click.command()
@click.argument("directory", metavar="DIR", type=click.Path(path_type=Path))
@click.option(
    "--stage", "stages", type=click.IntRange(min=0), multiple=True, help="This stage only; repeatable."
)
@click.option("--json", "as_document", is_flag=True, help="Print one JSON document.")
def command(directory: Path, stages: tuple[int, ...], as_document: bool) -> None:
    """Prove the memory that a plan predicts, without a GPU: every pipeline stage of the rendered directory
    DIR goes through forward, backward and optimizer step in DeepSpeed's own engine, at full size, on tensors
    without memory.

    Prints planned beside traced bytes. Exits with 0 if all are within tolerance, with 1 if not, with 2 for
    bad input. Needs torch and DeepSpeed, and half a GiB of memory for each stage traced at once.
    """
    import json

    from vdsgen.cli.progress import ProgressLine
    from vdsgen.verify.run import verify
    from vdsgen.verify.text import as_json, as_text

    progress = ProgressLine("Tracing")
    try:
        found = verify(directory, stages, progress)
    finally:
        progress.erase()
    click.echo(json.dumps(as_json(found), indent=2) + "\n" if as_document else as_text(found), nl=False)
    click.get_current_context().exit(0 if found.within else 1)
