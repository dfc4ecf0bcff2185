"""`vdsgen calibrate`: this machine, measured, as a fragment of a lab file."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from collections.abc import Callable

    from vdsgen.profile.calibrate import Progress


@click.command()
@click.option(
    "--ranks", type=click.IntRange(1, 1024), help="Training processes; default: one a GPU, else one."
)
@click.option("--out", type=click.Path(dir_okay=False, path_type=Path), help="Write here; default: print.")
@click.option(
    "--lab",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Also write a lab file for this machine that includes --out.",
)
@click.option(
    "--checkpoints",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    metavar="FOLDER",
    help="Measure how fast all ranks save there, too: where runs will lie.",
)
def command(ranks: int | None, out: Path | None, lab: Path | None, checkpoints: Path | None) -> None:
    """Measure this machine with RANKS training processes, into a fragment that a lab file includes
    (`calibration: FILE` in its pool).

    Matrix rates by shape and precision, attention, memory bandwidth, AdamW, one real layer of the bundled
    model, collectives and messages among the ranks, and the link to the host where there is a GPU. Each
    figure comes with its quartiles. Takes about a minute; leave the machine alone meanwhile.
    """
    import os
    from importlib.util import find_spec

    from vdsgen.errors import InputError, Problem, VdsgenError

    if find_spec("torch") is None:
        raise VdsgenError(
            "measuring needs torch, which is not installed", remedy="pip install 'vdsgen[train]'"
        )
    if checkpoints is not None and not os.access(checkpoints, os.W_OK):
        raise InputError([Problem(f"{checkpoints} cannot be written to", key="--checkpoints")])
    if lab is not None and out is None:
        raise InputError([Problem("needs --out: a lab file names the fragment's file", key="--lab")])

    from vdsgen.files import write_atomically
    from vdsgen.profile.calibrate import calibrate
    from vdsgen.profile.lab_text import fragment, lab_file
    from vdsgen.profile.machine import this_machine

    machine = this_machine()
    if lab is not None and machine.accelerator is not None:
        message = f"writes lab files for processors only; this machine has {machine.accelerator}"
        remedy = "vdsgen scan --out LAB writes one of its GPUs; put `calibration: FILE` into its pool"
        raise InputError([Problem(message, key="--lab", remedy=remedy)])
    count = ranks or max(1, machine.accelerators)
    text = fragment(calibrate(machine, count, _reporter(), checkpoints=checkpoints))
    if out is None:
        click.echo(text, nl=False)
        return
    write_atomically(out, text.encode())
    click.echo(f"Wrote {out}", err=True)
    if lab is not None:
        write_atomically(lab, lab_file(machine, count, _relative(out, lab)).encode())
        click.echo(f"Wrote {lab}", err=True)


def _relative(out: Path, lab: Path) -> str:
    """The fragment as seen from the lab file."""
    import os

    return Path(os.path.relpath(out.resolve(), lab.resolve().parent)).as_posix()


def _reporter() -> Callable[[Progress], None] | None:
    """One line that is written over, on a terminal; else one line at the beginning."""
    import sys

    def report(progress: Progress) -> None:
        click.echo(f"\r\x1b[K{progress.doing}: about {progress.seconds_left:.0f} s left", nl=False, err=True)

    if sys.stderr.isatty():
        return report
    click.echo("Measuring; about a minute.", err=True)
    return None
