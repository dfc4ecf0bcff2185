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
@click.option(
    "--resume",
    is_flag=True,
    help="Continue RUN from its last complete checkpoint, whatever layout of ranks it was saved in.",
)
@click.option(
    "--replan",
    is_flag=True,
    help="With --resume: plan what DIR trains for the GPUs that are left, and go on with that.",
)
@click.option(
    "--gpus", type=click.IntRange(min=1), metavar="N", help="--replan: so many of DIR's pool are left."
)
@click.option(
    "--lab", type=click.Path(path_type=Path), metavar="LAB", help="--replan: a lab file of what is left."
)
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    metavar="NEWDIR",
    help="--replan: directory for the new plan; default: RUN/plans/N.",
)
@click.option(
    "--measure", is_flag=True, help="For short runs: metrics and a summary, no checkpoint, no sample video."
)
@click.option(
    "--profile-steps",
    metavar="FIRST:LAST",
    callback=_steps,
    help="Write a trace of these steps for Perfetto, a file a rank; later, by writing RUN/profile-request.",
)
@click.option(
    "--trace-steps",
    metavar="FIRST:LAST",
    callback=_steps,
    help="Write when each rank runs which instruction of the schedule in these steps, for `vdsgen report`; "
    "later, by writing RUN/trace-request.",
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
@click.option(
    "--preflight",
    is_flag=True,
    help="Do what `vdsgen preflight` does first; start only if it finds no error.",
)
@click.option("--clear-stale-locks", is_flag=True, help="Remove locks that killed compiles left behind.")
def command(
    directory: Path,
    output: Path,
    steps: int | None,
    resume: bool,
    replan: bool,
    gpus: int | None,
    lab: Path | None,
    out: Path | None,
    measure: bool,
    profile_steps: str | None,
    trace_steps: str | None,
    dry_run: bool,
    launcher: str | None,
    restarts: int | None,
    hang_seconds: float | None,
    preflight: bool,
    clear_stale_locks: bool,
) -> None:
    """Train what the rendered directory DIR says, into the run directory RUN.

    Exits with the training's own code; with 128 + N if signal N ended a rank; with 5 if it hangs.
    """
    from vdsgen.launch.start import Request, start

    _check_replan(replan, resume, gpus, lab, out)
    if replan:
        from vdsgen.cli.replan import replanned

        planned = replanned(directory, output, gpus=gpus, lab=lab, out=out, dry_run=dry_run)
        if planned is None:
            return
        directory = planned
    request = Request(
        directory=directory,
        output=output,
        steps=steps,
        resume=resume,
        measure=measure,
        profile_steps=profile_steps,
        trace_steps=trace_steps,
        launcher=launcher,
        restarts=restarts,
        hang_seconds=hang_seconds,
        preflight=preflight,
        dry_run=dry_run,
        clear_stale_locks=clear_stale_locks,
    )
    click.get_current_context().exit(start(request))


def _check_replan(replan: bool, resume: bool, gpus: int | None, lab: Path | None, out: Path | None) -> None:
    if replan and not resume:
        raise click.UsageError("--replan is for a run that goes on: add --resume")
    if not replan and (gpus is not None or lab is not None or out is not None):
        raise click.UsageError("--gpus, --lab and --out say what to plan for: add --replan")
    if gpus is not None and lab is not None:
        raise click.UsageError("--gpus counts what is left, --lab describes it: give one of them")
