"""`vdsgen watch`: a run in a terminal."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import click


@click.command()
@click.argument("run", metavar="RUN", type=click.Path(path_type=Path))
@click.option("--once", is_flag=True, help="Print what is known now as plain text, and leave.")
@click.option("--json", "as_json", is_flag=True, help="The same as JSON.")
@click.option(
    "--every",
    "every_seconds",
    type=click.FloatRange(min=0.1, max=3600),
    default=1.0,
    show_default=True,
    metavar="SECONDS",
    help="Between two looks at the files.",
)
@click.option(
    "--width",
    type=click.IntRange(min=40, max=1000),
    help="--once: characters a line; default: the terminal's, or 100.",
)
def command(run: Path, once: bool, as_json: bool, every_seconds: float, width: int | None) -> None:
    """Show the run directory RUN: how far it is, its curves, its memory beside the plan's, what it warns of.

    Of a run that is going, has ended or has not started yet. Files are only read. Without a terminal it does
    what --once does. --once and --json exit with 1 where something is wrong: the run has failed, hangs, shows
    no sign of life, has no finite loss or needs more memory than there is.
    """
    from vdsgen.runs.reader import RunReader
    from vdsgen.watch.frame import Watcher

    _check(run)
    if once or as_json or not sys.stdout.isatty():
        frame = Watcher(RunReader(run)).look()
        if as_json:
            from vdsgen.watch.as_json import as_json as json_of

            click.echo(json_of(frame))
        else:
            from vdsgen.watch.plain import plain_text

            unicode = "utf" in (sys.stdout.encoding or "").lower()
            click.echo(
                plain_text(frame, width or shutil.get_terminal_size((100, 24)).columns, unicode=unicode)
            )
        click.get_current_context().exit(int(any(notice.severity == "error" for notice in frame.notices)))
    _show(run, every_seconds)


def _show(run: Path, every_seconds: float) -> None:
    from vdsgen.errors import VdsgenError
    from vdsgen.runs.reader import RunReader
    from vdsgen.watch.frame import Watcher

    try:
        from vdsgen.watch.app import WatchApp
    except ImportError as error:
        raise VdsgenError(
            f"the view in the terminal needs {error.name}, which is not installed",
            remedy="pip install 'vdsgen[watch]'; or --once, which prints the same as text",
        ) from error
    WatchApp(Watcher(RunReader(run)), every_seconds=every_seconds).run()


def _check(run: Path) -> None:
    """Raises VdsgenError for what can never become a run directory."""
    from vdsgen.errors import VdsgenError

    if run.exists() and not run.is_dir():
        raise VdsgenError(f"{run}: is no directory", remedy="name a run directory")
    if (run / "ds_config.json").is_file() and not (run / "run.json").exists():
        raise VdsgenError(
            f"{run}: is a rendered directory, not a run's",
            remedy=f"vdsgen launch {run} --output RUN, then vdsgen watch RUN",
        )
