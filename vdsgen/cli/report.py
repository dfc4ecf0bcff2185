"""`vdsgen report`: one HTML file about a plan, or two side by side."""

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
    help="Time every variant of every layout for the picture of alternatives: seconds to minutes.",
)
def command(directories: tuple[Path, ...], out: Path, trace: Path | None, all_alternatives: bool) -> None:
    """Write one HTML file about the rendered directory DIR, or about DIR and DIR2 side by side.

    Memory over the time of a step, the pipeline's schedule, where the time goes, the machines and their
    links, and what else could have been planned. The file needs no network, and nothing beside it.
    """
    from vdsgen.cli.progress import ProgressLine
    from vdsgen.report.files import write_page, write_trace
    from vdsgen.report.plan.report import plan_report, plan_trace

    if len(directories) > 2:
        raise click.UsageError("one directory, or two to compare")
    progress = ProgressLine("Planning the alternatives")
    try:
        content = plan_report(directories, progress, every_alternative=all_alternatives)
    finally:
        progress.erase()
    write_page(out, content)
    if trace is not None:
        write_trace(trace, plan_trace(directories[0]))
    written = [str(path) for path in (out, trace) if path is not None]
    click.echo(f"wrote {' and '.join(written)}")
