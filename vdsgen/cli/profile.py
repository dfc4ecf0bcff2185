"""`vdsgen profile`: trace a model's layers into a layer profile."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from vdsgen.spec.architecture import Vdt
    from vdsgen.spec.profile import ModelProfile


@click.command()
@click.argument("model", metavar="MODEL", required=False)
@click.option("--all", "everything", is_flag=True, help="Trace every catalogue model, instead of MODEL.")
@click.option(
    "--out",
    metavar="FILE",
    type=click.Path(path_type=Path),
    help="Write the profile here; with --all, a folder for NAME.json files. Default: standard output.",
)
def command(model: str | None, everything: bool, out: Path | None) -> None:
    """Trace the layers of MODEL, a catalogue model or an experiment file, into a layer profile.

    Needs torch and no GPU; takes seconds at any size.
    """
    from vdsgen.cli.profiles import trace

    if (model is None) != everything:
        raise click.UsageError("name a MODEL, or give --all.")
    if model is not None:
        write(trace(named(model)), out)
        return
    if out is None:
        raise click.UsageError("--all needs --out, the folder to write to.")
    from vdsgen.catalog.load import models

    for name, entry in models().items():
        write(trace(entry.sizes), out / f"{name}.json")


def named(model: str) -> Vdt:
    """A catalogue model, or the model of an experiment file. Raises VdsgenError if it is neither."""
    from vdsgen.catalog import models, open_experiment, resolve_model

    if model in models() or not Path(model).exists():
        return resolve_model(model)
    return resolve_model(open_experiment(model).model)


def write(profile: ModelProfile, out: Path | None) -> None:
    """To a file, whole or not at all, or to standard output."""
    from vdsgen.profile.text import profile_text

    if out is None:
        click.echo(profile_text(profile), nl=False)
        return
    from vdsgen.files import write_atomically

    write_atomically(out, profile_text(profile).encode())
    click.echo(f"{out}: {profile.model}, {profile.parameters / 1e9:.3f} B parameters", err=True)
