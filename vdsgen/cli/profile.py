"""`vdsgen profile`: trace a model's layers into a layer profile."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from vdsgen.spec.geometry import TrainedModel
    from vdsgen.spec.pretrained import PretrainedProfile
    from vdsgen.spec.profile import ModelProfile


PRETRAINED = "pretrained"
"""Folder below --out for models of other libraries, as in vdsgen/catalog/data/profiles."""


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

    Needs torch (for diffusers' models, also diffusers and peft) and no GPU; takes seconds at any size, half
    a minute for a diffusers model with all its variants.
    """
    if (model is None) != everything:
        raise click.UsageError("name a MODEL, or give --all.")
    if model is not None:
        write(traced(model), out)
        return
    if out is None:
        raise click.UsageError("--all needs --out, the folder to write to.")
    from vdsgen.catalog.load import models, pretrained

    for name in models():
        write(traced(name), out / f"{name}.json")
    for name in pretrained():
        write(traced(name), out / PRETRAINED / f"{name}.json")


def traced(model: str) -> ModelProfile | PretrainedProfile:
    """The profile of a catalogue model or an experiment's. Raises VdsgenError for what is neither."""
    from vdsgen.catalog.load import pretrained
    from vdsgen.cli.profiles import progress_line as show
    from vdsgen.cli.profiles import trace, trace_pretrained
    from vdsgen.spec.diffusers_model import DiffusersModel

    if model in pretrained():
        return trace_pretrained(model, pretrained()[model], show)
    sizes = named(model)
    if isinstance(sizes, DiffusersModel):
        return trace_pretrained(sizes.name, sizes, show)
    show(f"{sizes.name}: every layer type")
    profile = trace(sizes, other_attention=True)
    show("")
    return profile


def named(model: str) -> TrainedModel:
    """A catalogue model, or the model of an experiment file. Raises VdsgenError if it is neither."""
    from vdsgen.catalog import models, open_experiment, resolve_model

    if model in models() or not Path(model).exists():
        return resolve_model(model)
    return resolve_model(open_experiment(model).model)


def write(profile: ModelProfile | PretrainedProfile, out: Path | None) -> None:
    """To a file, whole or not at all, or to standard output."""
    from vdsgen.profile.text import profile_text
    from vdsgen.spec.profile import ModelProfile

    if out is None:
        click.echo(profile_text(profile), nl=False)
        return
    from vdsgen.files import write_atomically

    write_atomically(out, profile_text(profile).encode())
    full = profile if isinstance(profile, ModelProfile) else profile.full
    click.echo(f"{out}: {full.model}, {full.parameters / 1e9:.3f} B parameters", err=True)
