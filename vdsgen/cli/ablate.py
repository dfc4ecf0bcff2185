"""`vdsgen ablate`: run a set of plans for a few steps each, and rank them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from vdsgen.errors import VdsgenError

if TYPE_CHECKING:
    from vdsgen.ablate.choices import Choices
    from vdsgen.ablate.planning import Planning
    from vdsgen.ablate.records import Ablation
    from vdsgen.ablate.state import AblationDirectory

DEFAULT_PLANS = ("top:4",)
STOPPED = "Stopped; what has ended is kept, and the same command continues."


@click.command()
@click.argument("experiment", metavar="[EXPERIMENT]", required=False, type=click.Path(path_type=Path))
@click.option("--lab", metavar="LAB", type=click.Path(path_type=Path), help="Lab file.")
@click.option("--pool", metavar="NAME", help="Pool to run on; needed where the lab has several.")
@click.option(
    "--plans",
    "selectors",
    multiple=True,
    metavar="WHICH",
    help="top:N (the planner's best), 'grid:KEY=VALUE,VALUE;KEY=VALUE' (pins, all combinations), a YAML file "
    "of constraints, or a rendered directory; repeatable.  [default: top:4]",
)
@click.option(
    "--out", metavar="DIR", type=click.Path(path_type=Path), help="Directory of the results; continued."
)
@click.option(
    "--steps", type=click.IntRange(min=1), default=5, show_default=True, help="Timed steps of each run."
)
@click.option(
    "--interleave",
    "rounds",
    type=click.IntRange(min=1),
    default=2,
    show_default=True,
    metavar="ROUNDS",
    help="How often the set is gone through.",
)
@click.option(
    "--set",
    "overrides",
    multiple=True,
    metavar="KEY=VALUE",
    help="Change a key of the experiment; repeatable.",
)
@click.option("--try-anyway", is_flag=True, help="Also run plans that would not fit.")
@click.option("--retry-failed", is_flag=True, help="Run plans again that failed before.")
@click.option(
    "--report",
    "report_on",
    metavar="DIR",
    type=click.Path(path_type=Path),
    help="Only report what DIR holds.",
)
@click.option("--json", "as_json", is_flag=True, help="Print the report as JSON and nothing else.")
def command(
    experiment: Path | None,
    lab: Path | None,
    pool: str | None,
    selectors: Sequence[str],
    out: Path | None,
    steps: int,
    rounds: int,
    overrides: Sequence[str],
    try_anyway: bool,
    retry_failed: bool,
    report_on: Path | None,
    as_json: bool,
) -> None:
    """Run a set of plans for EXPERIMENT for a few steps each, measure memory and time, and rank them.

    Plans run one at a time, in rounds. Interrupted, it continues where it was when the same command is
    given again. What it learns of the machine goes into DIR/calibration.yaml, for the lab file. Exits with
    1 if a plan failed.
    """
    import sys

    from vdsgen.ablate.measure import InterruptedRunError
    from vdsgen.ablate.session import measure_all
    from vdsgen.ablate.state import AblationDirectory

    if report_on is not None:
        if experiment is not None or out is not None:
            raise click.UsageError("--report DIR stands alone: it measures nothing")
        directory = AblationDirectory(report_on)
        conclude(directory, directory.read(), as_json)
        return
    if experiment is None or lab is None or out is None:
        raise click.UsageError("EXPERIMENT, --lab LAB and --out DIR are needed, or --report DIR")
    planning = planning_for(experiment, lab, pool, overrides, try_anyway)
    choices = chosen_plans(planning, experiment, overrides, selectors)
    directory = AblationDirectory(out)
    try:
        ablation = measure_all(
            directory, planning, choices, steps, rounds, sys.stderr, retry_failed=retry_failed
        )
    except KeyboardInterrupt:
        click.echo(STOPPED, err=True)
        raise
    except InterruptedRunError as stopped:
        click.echo(STOPPED, err=True)
        click.get_current_context().exit(stopped.exit_code)
    conclude(directory, ablation, as_json)


def planning_for(
    experiment: Path, lab: Path, pool: str | None, overrides: Sequence[str], try_anyway: bool
) -> Planning:
    """Reads the inputs. Raises InputError for what is wrong with them, VdsgenError where no pool is named."""
    from vdsgen.ablate.planning import Planning
    from vdsgen.catalog.inputs import open_inputs
    from vdsgen.cli.plan import chosen_pools
    from vdsgen.cli.profiles import find_profile

    opened, resolved = open_inputs(lab, experiment, overrides)
    pools = chosen_pools(opened, [] if pool is None else [pool])
    if len(pools) > 1:
        raise VdsgenError(
            f"{lab} has {len(pools)} pools, plans are measured on one",
            remedy=f"add --pool {' or --pool '.join(one.name for one in pools)}",
        )
    return Planning(resolved, pools[0], find_profile(resolved), try_anyway)


def chosen_plans(
    planning: Planning, experiment: Path, overrides: Sequence[str], selectors: Sequence[str]
) -> Choices:
    """What --plans asks for. Problems of the experiment name their place in its file."""
    import sys

    from vdsgen.ablate.choices import choose
    from vdsgen.ablate.progress import counting
    from vdsgen.ablate.selectors import parse_selectors
    from vdsgen.cli.plan import problems_placed

    wanted = parse_selectors(selectors or DEFAULT_PLANS)
    with problems_placed(experiment, overrides):
        return choose(counting(wanted, "planning", sys.stderr), planning)


def conclude(directory: AblationDirectory, ablation: Ablation, as_json: bool) -> None:
    """Prints the report, writes the calibration, and exits with 1 if a plan failed."""
    from vdsgen.ablate.calibration import write_calibration
    from vdsgen.ablate.report import document, report_of
    from vdsgen.ablate.report_text import text
    from vdsgen.ablate.results import results_of
    from vdsgen.render.serialise import pretty_json

    report = report_of(ablation, results_of(ablation, directory.journal()))
    written = write_calibration(directory.path, ablation, report.fit)
    if as_json:
        click.echo(pretty_json(document(report)), nl=False)
    else:
        click.echo(text(report), nl=False)
        click.echo(f"\nResults: {directory.results}" + (f"\nCalibration: {written}" if written else ""))
    click.get_current_context().exit(1 if report.any_failed else 0)
