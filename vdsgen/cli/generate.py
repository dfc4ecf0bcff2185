"""`vdsgen generate`: plan, and render the files that training runs from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from vdsgen.errors import VdsgenError

if TYPE_CHECKING:
    from vdsgen.spec.manifest import Rendering
    from vdsgen.spec.plan import Plan


@click.command()
@click.argument("experiment", metavar="[EXPERIMENT]", required=False, type=click.Path(path_type=Path))
@click.option("--lab", metavar="LAB", type=click.Path(path_type=Path), help="Lab file.")
@click.option("--out", metavar="DIR", type=click.Path(path_type=Path), help="Directory to write into.")
@click.option("--pool", "pools", multiple=True, metavar="NAME", help="Plan for this pool only; repeatable.")
@click.option(
    "--set",
    "overrides",
    multiple=True,
    metavar="KEY=VALUE",
    help="Change a key of the experiment; repeatable.",
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
@click.option(
    "--manifest",
    metavar="FILE",
    type=click.Path(path_type=Path),
    help="Render everything that this vdsgen.yaml names, in the place of EXPERIMENT, --lab and --out.",
)
@click.option(
    "--record",
    metavar="FILE",
    type=click.Path(path_type=Path),
    help="Note in this vdsgen.yaml what DIR comes from, for `vdsgen check`.",
)
def command(
    experiment: Path | None,
    lab: Path | None,
    out: Path | None,
    pools: Sequence[str],
    overrides: Sequence[str],
    template_dir: Path | None,
    also: Sequence[str],
    manifest: Path | None,
    record: Path | None,
) -> None:
    """Plan EXPERIMENT for LAB and write the files that training runs from.

    With one pool they go straight into the directory, with several into one folder a pool. All are rendered
    before any is written. Exits with 3 where no plan fits.
    """
    checked_templates(template_dir)
    if manifest is not None:
        given = (experiment, lab, out, record, *pools, *overrides, *also)
        if any(one is not None for one in given):
            raise click.UsageError("--manifest says what is rendered: nothing else goes with it.")
        _write(_manifests_directories(manifest, template_dir))
        return
    missing = [
        name for name, one in (("EXPERIMENT", experiment), ("--lab", lab), ("--out", out)) if one is None
    ]
    if experiment is None or lab is None or out is None:
        raise click.UsageError(f"Missing {', '.join(missing)} (or --manifest FILE).")
    rendering = _rendering(record, experiment, lab, out, pools, overrides, template_dir, also)
    _write(_directories(experiment, lab, out, pools, overrides, template_dir, also))
    if record is not None and rendering is not None:
        from vdsgen.review.trees.record import record_rendering

        said = record_rendering(record, rendering)
        click.echo(f"{record}: {said}")


Rendered = tuple[Path, "Plan", Mapping[str, bytes]]


def _write(rendered: Sequence[Rendered]) -> None:
    from vdsgen.render.write import write_files

    for directory, plan, files in rendered:
        write_files(directory, files)
        click.echo(f"{directory}: {', '.join(files)}")
        click.echo(f"  {summary(plan)}")


def _directories(
    experiment: Path,
    lab: Path,
    out: Path,
    pools: Sequence[str],
    overrides: Sequence[str],
    template_dir: Path | None,
    also: Sequence[str],
) -> list[Rendered]:
    """One experiment on one lab: a directory a pool."""
    from vdsgen.catalog.inputs import open_inputs
    from vdsgen.cli.plan import chosen_pools, plans_by_pool, problems_placed
    from vdsgen.cli.profiles import find_profile
    from vdsgen.render.others import render_others
    from vdsgen.render.render import render_plan
    from vdsgen.review.overridden import check_overrides

    opened, resolved = open_inputs(lab, experiment, overrides)
    chosen = chosen_pools(opened, pools)
    profile = find_profile(resolved)
    with problems_placed(experiment, overrides):
        planned = plans_by_pool(resolved, chosen, profile, top=1)
        for _, (plan, *_) in planned:
            for problem in check_overrides(plan, resolved):
                click.echo(f"warning: {problem}", err=True)
    return [
        (
            out if len(chosen) == 1 else out / pool.name,
            plan,
            render_plan(plan, resolved, template_dir) | render_others(also, plan, resolved),
        )
        for pool, (plan, *_) in planned
    ]


def _manifests_directories(manifest: Path, template_dir: Path | None) -> list[Rendered]:
    """Everything that a manifest names."""
    from vdsgen.review.trees.entries import beside, inside, read_manifest

    rendered: list[Rendered] = []
    for entry in read_manifest(manifest).rendered:
        templates = template_dir if entry.templates is None else beside(manifest.parent, entry.templates)
        checked_templates(templates)
        rendered += _directories(
            beside(manifest.parent, entry.experiment),
            beside(manifest.parent, entry.lab),
            inside(manifest.parent, entry.out),
            entry.pools,
            entry.set,
            templates,
            entry.also,
        )
    return rendered


def _rendering(
    record: Path | None,
    experiment: Path,
    lab: Path,
    out: Path,
    pools: Sequence[str],
    overrides: Sequence[str],
    template_dir: Path | None,
    also: Sequence[str],
) -> Rendering | None:
    """What a manifest would say of this. Raises VdsgenError where `out` does not lie below it."""
    if record is None:
        return None
    from vdsgen.review.trees.record import rendering_of

    return rendering_of(record, experiment, lab, out, pools, overrides, template_dir, also)


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
