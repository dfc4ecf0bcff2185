"""`vdsgen check`: fail if a rendered directory is stale or was edited by hand."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from vdsgen.spec.experiment import Experiment
    from vdsgen.spec.lab import Pool
    from vdsgen.spec.plan import Plan


@click.command()
@click.argument("directory", metavar="DIR", type=click.Path(path_type=Path))
@click.option(
    "--templates",
    "template_dir",
    metavar="DIR",
    type=click.Path(path_type=Path),
    help="The templates of your own that DIR was rendered with.",
)
def command(directory: Path, template_dir: Path | None) -> None:
    """Plan again from what the rendered directory DIR records, and compare its files with the result.

    Exits with 0 if they are the same to the byte; with 1 if not, and shows the lines and whether they are
    out of date or edited by hand.
    """
    from vdsgen.cli.generate import checked_templates
    from vdsgen.errors import InputError
    from vdsgen.review.check import as_text, check
    from vdsgen.review.directory import read_directory

    checked_templates(template_dir)
    opened = read_directory(directory)
    try:
        checked = check(opened, plan_again, template_dir)
    except InputError as error:
        file = str(directory / "train.yaml")
        raise InputError([p if p.file else p._replace(file=file) for p in error.problems]) from None
    click.echo(as_text(checked), nl=False)
    click.get_current_context().exit(0 if checked.fresh else 1)


def plan_again(experiment: Experiment, pool: Pool) -> Plan:
    """As `vdsgen generate` plans."""
    from vdsgen.catalog.resolve import resolve_experiment
    from vdsgen.cli.profiles import find_profile
    from vdsgen.planner.plan import make_plan

    resolved = resolve_experiment(experiment)
    return make_plan(resolved, pool, find_profile(resolved))
