"""`vdsgen calibrate`: this machine, measured, as a lab file."""

from __future__ import annotations

from pathlib import Path

import click


@click.command()
@click.option("--ranks", type=click.IntRange(1, 1024), default=1, show_default=True)
@click.option("--out", type=click.Path(dir_okay=False, path_type=Path), help="Write here; default: print.")
def command(ranks: int, out: Path | None) -> None:
    """Measure this machine's processor with RANKS training processes at once, into a lab file.

    Matrix rate, memory bandwidth and the link between ranks, all ranks busy at the same time, and one
    real layer of the bundled model. Takes about half a minute.
    """
    from importlib.util import find_spec

    from vdsgen.errors import VdsgenError
    from vdsgen.files import write_atomically
    from vdsgen.profile.calibrate import calibrate_cpu, lab_file, this_machine

    if find_spec("torch") is None:
        raise VdsgenError(
            "measuring needs torch, which is not installed", remedy="pip install 'vdsgen[train]'"
        )

    click.echo(f"Measuring with {ranks} ranks at once; about half a minute.", err=True)
    text = lab_file(this_machine(), ranks, calibrate_cpu(ranks))
    if out is None:
        click.echo(text, nl=False)
    else:
        write_atomically(out, text.encode())
        click.echo(f"Wrote {out}", err=True)
