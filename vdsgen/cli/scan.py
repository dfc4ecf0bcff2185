"""`vdsgen scan`: a lab file from the hardware that is there."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from vdsgen.scan.scan import Scan


@click.command()
@click.option(
    "--hosts",
    "hosts_file",
    metavar="FILE",
    type=click.Path(path_type=Path),
    help="Ask these hosts over ssh, one a line; default: this machine, and SLURM where it is.",
)
@click.option(
    "--together", is_flag=True, help="With --hosts: one pool of all GPUs, however they differ (groups)."
)
@click.option(
    "--out",
    metavar="LAB",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Write here; default: print.",
)
@click.option("--force", is_flag=True, help="Write over a file that is there.")
@click.option(
    "--json", "as_json", is_flag=True, help="Print one JSON document, with what each host answered."
)
@click.pass_context
def command(
    context: click.Context,
    hosts_file: Path | None,
    together: bool,
    out: Path | None,
    force: bool,
    as_json: bool,
) -> None:
    """Write a lab file from the GPUs found here, on hosts over ssh, or in SLURM's partitions.

    Hosts need ssh without a password, and Python 3; nothing is installed or left there. Exits with 1 where a
    host or a partition with GPUs is not in the file.
    """
    from vdsgen.errors import InputError, Problem
    from vdsgen.files import write_atomically
    from vdsgen.scan.hosts import read_hosts
    from vdsgen.scan.scan import scan_here, scan_hosts

    if together and hosts_file is None:
        raise InputError([Problem("needs --hosts", key="--together")])
    if out is not None and out.exists() and not force:
        raise InputError(
            [Problem(f"{out} is there already", key="--out", remedy="another name, or --force to replace it")]
        )
    found = scan_here() if hosts_file is None else scan_hosts(read_hosts(hosts_file), together=together)
    if out is not None:
        write_atomically(out, found.text.encode())
    if as_json:
        click.echo(_document(found, out))
    elif out is None:
        click.echo(found.text, nl=False)
    for name, reason in found.missed:
        click.echo(f"warning: not written: {name}: {reason}", err=True)
    if not as_json and out is not None:
        for remark in found.remarks:
            click.echo(remark, err=True)
        click.echo(f"Wrote {out}", err=True)
    context.exit(1 if found.missed else 0)


def _document(found: Scan, out: Path | None) -> str:
    import json

    return json.dumps(
        {
            "lab": found.lab,
            "written": None if out is None else str(out),
            "missed": [{"name": name, "reason": reason} for name, reason in found.missed],
            "answers": [answer.model_dump(mode="json") for answer in found.answers],
        },
        indent=2,
    )
