"""`vdsgen generate`: plan, and render the files that training runs from."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from vdsgen.cli.options import planning_options
from vdsgen.errors import VdsgenError

if TYPE_CHECKING:
    from vdsgen.spec.plan import Plan


@click.command()
@planning_options
@click.option(
    "--out", required=True, metavar="DIR", type=click.Path(path_type=Path), help="Directory to write into."
)
@click.option(
    "--templates",
    "template_dir",
    metavar="DIR",
    type=click.Path(path_type=Path),
    help="Templates of your own, by the names of the bundled ones.",
)
@click.option(
    "--also",
    type=click.Choice(["accelerate", "megatron", "diffusion-pipe"]),
    multiple=True,
    help="Files for another trainer too, where it can do what the plan says; repeatable.",
)
def command(
    experiment: Path,
    lab: Path,
    out: Path,
    pools: Sequence[str],
    overrides: Sequence[str],
    template_dir: Path | None,
    also: Sequence[str],
) -> None:
    """Plan EXPERIMENT for LAB and write the files that training runs from.

    With one pool they go straight into the directory, with several into one folder a pool. All are rendered
    before any is written. Exits with 3 where no plan fits.
    """
    from vdsgen.catalog.inputs import open_inputs
    from vdsgen.cli.plan import chosen_pools, plans_by_pool, problems_placed
    from vdsgen.cli.profiles import find_profile
    from vdsgen.render.others import render_others
    from vdsgen.render.render import render_plan
    from vdsgen.render.write import write_files
    from vdsgen.review.overridden import check_overrides

    checked_templates(template_dir)
    opened, resolved = open_inputs(lab, experiment, overrides)
    chosen = chosen_pools(opened, pools)
    profile = find_profile(resolved)
    with problems_placed(experiment, overrides):
        planned = plans_by_pool(resolved, chosen, profile, top=1)
        for _, (plan, *_) in planned:
            for problem in check_overrides(plan, resolved):
                click.echo(f"warning: {problem}", err=True)
    rendered = [
        (
            out if len(chosen) == 1 else out / pool.name,
            plan,
            render_plan(plan, resolved, template_dir) | render_others(also, plan, resolved),
        )
        for pool, (plan, *_) in planned
    ]
    for directory, plan, files in rendered:
        write_files(directory, files)
        click.echo(f"{directory}: {', '.join(files)}")
        click.echo(f"  {summary(plan)}")


def checked_templates(template_dir: Path | None) -> None:
    """Raises VdsgenError where there is no such directory; warns of names that replace nothing."""
    from vdsgen.render.environment import TEMPLATES, unknown_templates

    if template_dir is None:
        return
    if not template_dir.is_dir():
        raise VdsgenError(f"--templates: {template_dir} is no directory")
    for name in unknown_templates(template_dir):
        click.echo(
            f"warning: {template_dir / name} replaces no template; there are {', '.join(TEMPLATES)}", err=True
        )


def summary(plan: Plan) -> str:
    """The plan in one line."""
    from vdsgen.planner.plan_settings import settings_of
    from vdsgen.planner.words import gib, settings_words

    fullest = max(plan.stages, key=lambda stage: stage.memory.peak_bytes - stage.capacity_bytes)
    return (
        f"{settings_words(settings_of(plan))}; {gib(fullest.memory.peak_bytes)} of "
        f"{gib(fullest.capacity_bytes)}, "
        f"{plan.predicted.samples_per_second:.3g} samples/s predicted"
    )
