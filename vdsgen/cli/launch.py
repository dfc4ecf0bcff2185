"""`vdsgen launch`: train what a rendered directory says."""

from __future__ import annotations

from pathlib import Path

import click

from vdsgen.spec.steps import parse_steps


def _steps(_context: click.Context, _parameter: click.Parameter, text: str | None) -> str | None:
    """Refused before anything starts."""
    return None if text is None else str(parse_steps(text))


@click.command()
@click.argument("directory", metavar="DIR", type=click.Path(path_type=Path))
@click.option(
    "--output", required=True, metavar="RUN", type=click.Path(path_type=Path), help="Run directory to make."
)
@click.option(
    "--steps",
    type=click.IntRange(min=1),
    help="Stop after this many optimizer steps in total, resumed ones included; default: the experiment's.",
)
@click.option("--resume", is_flag=True, help="Continue RUN from its last complete checkpoint.")
@click.option(
    "--measure", is_flag=True, help="For short runs: metrics and a summary, no checkpoint, no sample video."
)
@click.option(
    "--profile-steps",
    metavar="FIRST:LAST",
    callback=_steps,
    help="Write a trace of these steps for Perfetto, a file a rank; later, by writing RUN/profile-request.",
)
@click.option("--dry-run", is_flag=True, help="Print the command and change nothing.")
@click.option(
    "--launcher",
    type=click.Choice(["deepspeed", "torchrun", "ssh", "openmpi", "slurm"]),
    help="What starts the ranks; default: as the lab file says, or deepspeed. slurm submits a job.",
)
@click.option(
    "--restarts",
    type=click.IntRange(min=0),
    metavar="N",
    help="Start a run that fails again, N times at most, from its last checkpoint; default: as the lab file "
    "says, or 0.",
)
@click.option(
    "--hang-seconds",
    type=click.FloatRange(min=0),
    metavar="SECONDS",
    help="End a run whose ranks do not come on in a step for so long; 0: never; default: ten times the "
    "longest step, at least 60.",
)
@click.option("--clear-stale-locks", is_flag=True, help="Remove locks that killed compiles left behind.")
def command(
    directory: Path,
    output: Path,
    steps: int | None,
    resume: bool,
    measure: bool,
    profile_steps: str | None,
    dry_run: bool,
    launcher: str | None,
    restarts: int | None,
    hang_seconds: float | None,
    clear_stale_locks: bool,
) -> None:
    """Train what the rendered directory DIR says, into the run directory RUN.

    Exits with the training's own code; with 128 + N if signal N ended a rank; with 5 if it hangs.
    """
    from vdsgen.launch.start import Request, start

    request = Request(
        directory=directory,
        output=output,
        steps=steps,
        resume=resume,
        measure=measure,
        profile_steps=profile_steps,
        launcher=launcher,
        restarts=restarts,
        hang_seconds=hang_seconds,
        dry_run=dry_run,
        clear_stale_locks=clear_stale_locks,
    )
    click.get_current_context().exit(start(request))
