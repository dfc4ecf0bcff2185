"""`vdsgen verify`: run every stage of a plan on tensors without memory, and compare bytes."""

from __future__ import annotations

import sys
import time
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

    from vdsgen.verify.run import verify
    from vdsgen.verify.text import as_json, as_text

    progress = ProgressLine("Tracing")
    try:
        found = verify(directory, stages, progress)
    finally:
        progress.erase()
    click.echo(json.dumps(as_json(found), indent=2) + "\n" if as_document else as_text(found), nl=False)
    click.get_current_context().exit(0 if found.within else 1)


class ProgressLine:
    """Share done and time left, on standard error where that is a terminal."""

    def __init__(self, what: str) -> None:
        self._what = what
        self._began = time.monotonic()
        self._shown = False

    def __call__(self, share: float) -> None:
        if not sys.stderr.isatty():
            return
        elapsed = time.monotonic() - self._began
        left = f", about {elapsed * (1 - share) / share:.0f} s left" if share > 0 else ""
        sys.stderr.write(f"\r\x1b[K{self._what}: {share:.0%}{left}")
        sys.stderr.flush()
        self._shown = True

    def erase(self) -> None:
        if self._shown:
            sys.stderr.write("\r\x1b[K")
            sys.stderr.flush()
