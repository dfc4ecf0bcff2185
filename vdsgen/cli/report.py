"""`vdsgen report`: one HTML file about a plan or a run, or two side by side."""

from __future__ import annotations

from pathlib import Path

import click


@click.command()
@click.argument("directories", metavar="DIR [DIR2]", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option(
    "--out",
    type=click.Path(path_type=Path, dir_okay=False),
    default="report.html",
    show_default=True,
    help="The file to write; another file than a report is not overwritten.",
)
@click.option(
    "--trace",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Also write the schedule for Perfetto and chrome://tracing (of DIR, where there are two).",
)
@click.option(
    "--all-alternatives",
    is_flag=True,
    help="Of plans: time every variant of every layout for the picture of alternatives: seconds to minutes.",
)
def command(directories: tuple[Path, ...], out: Path, trace: Path | None, all_alternatives: bool) -> None:
    """Write one HTML file about the rendered directory or the run directory DIR, or about two side by side.

    Of a plan: memory over the time of a step, the pipeline's schedule, where the time goes, the machines and
    their links, and what else could have been planned. Of a run: losses, gradients, speed and memory beside
    the plan's, alarms, and the sample videos. The file needs no network, and nothing beside it.
    """
    from vdsgen.cli.progress import ProgressLine
    from vdsgen.report.files import write_page, write_trace
    from vdsgen.report.plan.report import plan_report, plan_trace

    if len(directories) > 2:
        raise click.UsageError("one directory, or two to compare")
    if _are_runs(directories):
        from vdsgen.report.run.report import run_report, trace_of_run

        write_page(out, run_report(directories))
        if trace is not None:
            write_trace(trace, trace_of_run(directories[0]))
        _told(out, trace)
        return
    progress = ProgressLine("Planning the alternatives")
    try:
        content = plan_report(directories, progress, every_alternative=all_alternatives)
    finally:
        progress.erase()
    write_page(out, content)
    if trace is not None:
        write_trace(trace, plan_trace(directories[0]))
    _told(out, trace)


def _are_runs(directories: tuple[Path, ...]) -> bool:
    """Run directories, and no plans. Raises VdsgenError where one is of each kind."""
    from vdsgen.errors import VdsgenError
    from vdsgen.report.run.subject import is_run

    kinds = {is_run(directory) for directory in directories}
    if len(kinds) > 1:
        raise VdsgenError(
            "one directory is a run's, the other is not",
            remedy="compare two runs, or two plans: a run keeps its plan in RUN/plans",
        )
    return kinds == {True}


def _told(out: Path, trace: Path | None) -> None:
    written = [str(path) for path in (out, trace) if path is not None]
    click.echo(f"wrote {' and '.join(written)}")
