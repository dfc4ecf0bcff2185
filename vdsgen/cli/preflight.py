"""`vdsgen preflight`: everything that a long job depends on, looked at before it starts."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from collections.abc import Callable


@click.command()
@click.argument("directory", metavar="DIR", type=click.Path(path_type=Path))
@click.option(
    "--output",
    required=True,
    metavar="RUN",
    type=click.Path(path_type=Path),
    help="Run directory that the job will have; nothing stays in it.",
)
@click.option("--resume", is_flag=True, help="The job will continue RUN.")
@click.option(
    "--launcher",
    type=click.Choice(["deepspeed", "torchrun", "ssh", "openmpi", "slurm"]),
    help="What will start the ranks; default: as the lab file says, or deepspeed. slurm: refused, it chooses "
    "the hosts when the job starts.",
)
@click.option("--no-rehearsal", is_flag=True, help="Leave out the two steps of the real job.")
@click.option("--no-links", is_flag=True, help="Neither measure links nor rehearse: only ask the hosts.")
@click.option(
    "--rehearsal-seconds",
    type=click.IntRange(min=10),
    default=600,
    show_default=True,
    help="End the rehearsal after so long; loading a large model takes its time.",
)
@click.option("--json", "as_document", is_flag=True, help="Print one JSON document.")
def command(
    directory: Path,
    output: Path,
    resume: bool,
    launcher: str | None,
    no_rehearsal: bool,
    no_links: bool,
    rehearsal_seconds: int,
    as_document: bool,
) -> None:
    """Look at every host of the job that the rendered directory DIR describes, measure the links between its
    ranks, and rehearse two of its steps. Starts nothing that stays, and removes what it writes.

    Exits with 0 if nothing speaks against a start (there may be warnings), with 1 if something does, with 2
    for bad input.
    """
    from vdsgen.launch.hosts.check import check
    from vdsgen.launch.hosts.rehearsal import InterruptedRehearsalError
    from vdsgen.launch.hosts.report import text_of
    from vdsgen.launch.start import Request, check_machine, prepare

    request = Request(directory, output, resume=resume, launcher=launcher, preflight=True)
    show, erase = _reporter()
    context = click.get_current_context()
    try:
        prepared = prepare(request)
        check_machine(prepared, clear_stale_locks=False)
        report = check(
            prepared,
            request,
            links=not no_links,
            rehearsal=not (no_rehearsal or no_links),
            rehearsal_seconds=rehearsal_seconds,
            show=show,
        )
    except InterruptedRehearsalError as stopped:
        erase()
        context.exit(stopped.exit_code)
    finally:
        erase()
    click.echo(report.model_dump_json(indent=2) if as_document else text_of(report))
    context.exit(0 if report.ready else 1)


def _reporter() -> tuple[Callable[[str], None], Callable[[], None]]:
    """What is being done, on standard error: on a terminal one line, written over; else a line each."""
    import shutil
    import sys

    if not sys.stderr.isatty():
        return lambda text: click.echo(f"{text} ...", err=True), lambda: None

    def show(text: str) -> None:
        width = shutil.get_terminal_size().columns
        click.echo(f"\r\x1b[K{text} ..."[: width + 3], nl=False, err=True)

    return show, lambda: click.echo("\r\x1b[K", nl=False, err=True)
