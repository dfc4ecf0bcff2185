"""`vdsgen plan`: the best plan for a lab, its memory and time, and why it won."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from vdsgen.cli.options import planning_options
from vdsgen.errors import InputError, NoPlanFitsError, Problem

if TYPE_CHECKING:
    from vdsgen.spec.experiment import Experiment
    from vdsgen.spec.lab import Lab, Pool
    from vdsgen.spec.plan import Plan
    from vdsgen.spec.profile import ModelProfile


@click.command()
@planning_options
@click.option(
    "--top", type=click.IntRange(min=1), default=1, show_default=True, help="How many plans to print."
)
@click.option(
    "--explain",
    is_flag=True,
    help="Also print what the next GPU, node, GiB or link would buy, what every family of plans lacks, and "
    "where more GPUs lose time.",
)
@click.option(
    "--json", "as_json", is_flag=True, help="Print plan.json (a list of them with --top) and nothing else."
)
def command(
    experiment: Path,
    lab: Path,
    pools: Sequence[str],
    overrides: Sequence[str],
    top: int,
    explain: bool,
    as_json: bool,
) -> None:
    """Print the best plan for EXPERIMENT on LAB, its predicted memory and time, and why it won.

    Writes nothing. Exits with 3 where no plan fits, and says what would make one fit.
    """
    from vdsgen.catalog.inputs import open_inputs
    from vdsgen.cli.profiles import find_profile

    opened, resolved = open_inputs(lab, experiment, overrides)
    chosen = chosen_pools(opened, pools)
    profile = find_profile(resolved)
    with problems_placed(experiment, overrides):
        ranked = plans_by_pool(resolved, chosen, profile, top)
        if explain:
            ranked = [with_explanations(resolved, ranked[0], profile), *ranked[1:]]
    best = ranked[0]
    if as_json:
        click.echo(json_text(best[1]), nl=False)
        return
    for number, (pool, plans) in enumerate(ranked):
        if number:
            click.echo()
        click.echo(report(resolved, pool, profile, plans), nl=False)
    if len(chosen) > 1:
        from vdsgen.planner.solution import objective_words

        click.echo(f"\nBest pool: {best[0].name}, {objective_words(best[1][0], resolved.objective)}")


def with_explanations(
    experiment: Experiment, ranked: tuple[Pool, list[Plan]], profile: ModelProfile
) -> tuple[Pool, list[Plan]]:
    """A pool's plans, the best of them explained in full."""
    from vdsgen.cli.progress import ProgressLine
    from vdsgen.planner.explanations.explained import explained

    pool, (best, *others) = ranked
    progress = ProgressLine("Planning again")
    try:
        return pool, [explained(experiment, pool, profile, best, progress), *others]
    finally:
        progress.erase()


def chosen_pools(lab: Lab, names: Sequence[str]) -> list[Pool]:
    """The pools of these names, all where none is given. Raises InputError for names that are not there."""
    known = {pool.name: pool for pool in lab.pools}
    unknown = [name for name in names if name not in known]
    if unknown:
        raise InputError(
            [
                Problem(f"the lab has no pool {name!r}", key="--pool", remedy=f"it has {', '.join(known)}")
                for name in unknown
            ]
        )
    return [pool for pool in lab.pools if not names or pool.name in names]


@contextlib.contextmanager
def problems_placed(experiment: Path, overrides: Sequence[str]) -> Iterator[None]:
    """Problems that planning finds in the experiment name the file and line of their key."""
    try:
        yield
    except InputError as error:
        from vdsgen.catalog.inputs import placed
        from vdsgen.spec.load import read_experiment

        source = read_experiment(experiment, overrides).source
        raise InputError(placed(error.problems, source)) from None


def plans_by_pool(
    experiment: Experiment, pools: Sequence[Pool], profile: ModelProfile, top: int
) -> list[tuple[Pool, list[Plan]]]:
    """Each pool's best plans, the fastest pool first; pools that nothing fits, or that the demands do not
    suit, are named on standard error. A job is never spread over pools: one pool with groups says that.

    Raises InputError or NoPlanFitsError where no pool has a plan.
    """
    from vdsgen.planner.objective import preference
    from vdsgen.planner.plan import best_plans
    from vdsgen.planner.saving import is_far

    planned: list[tuple[Pool, list[Plan]]] = []
    errors: list[tuple[Pool, InputError | NoPlanFitsError]] = []
    for pool in pools:
        line = SearchLine(pool.name)
        try:
            plans = best_plans(experiment, pool, profile, top, pareto_first=True, progress=line)
            planned.append((pool, plans))
        except (InputError, NoPlanFitsError) as error:
            errors.append((pool, error))
        finally:
            line.erase()
    if not planned:
        raise _all_of([error for _, error in errors])
    for pool, (best, *_) in planned:
        if is_far(best.saving):
            click.echo(f"warning: pool {pool.name}: {best.reasons[-1]}", err=True)
    for pool, failure in errors:
        named = "" if isinstance(failure, NoPlanFitsError) else f"pool {pool.name}: "
        click.echo(f"warning: {named}{failure}", err=True)
    return sorted(planned, key=lambda entry: preference(entry[1][0], experiment.objective))


def _all_of(errors: Sequence[InputError | NoPlanFitsError]) -> InputError | NoPlanFitsError:
    """One error of several pools': that nothing fits where that is one's, else what the demands ask for."""
    unfit = [error for error in errors if isinstance(error, NoPlanFitsError)]
    if len(unfit) == 1 == len(errors):
        return unfit[0]
    if unfit:
        return NoPlanFitsError("\n".join(str(error) for error in errors))
    problems = [problem for error in errors if isinstance(error, InputError) for problem in error.problems]
    return InputError(list(dict.fromkeys(problems)))


class SearchLine:
    """How far a search has come, on standard error where that is a terminal, once it takes over two
    seconds."""

    AFTER_SECONDS = 2.0

    def __init__(self, pool: str) -> None:
        self._pool = pool
        self._began = time.monotonic()
        self._shown = False

    def __call__(self, done: int, of: int) -> None:
        if sys.stderr.isatty() and time.monotonic() - self._began > self.AFTER_SECONDS:
            click.echo(f"\r\x1b[Kplanning for {self._pool}: {done} of {of} layouts", nl=False, err=True)
            self._shown = True

    def erase(self) -> None:
        if self._shown:
            click.echo("\r\x1b[K", nl=False, err=True)


def report(experiment: Experiment, pool: Pool, profile: ModelProfile, plans: Sequence[Plan]) -> str:
    """One pool's plan on a screen, and its runners-up."""
    from vdsgen.planner.resolve import workload_of
    from vdsgen.planner.text import explanations_text, plan_text, ranking_text

    text = plan_text(plans[0], workload_of(experiment, pool, profile, plans[0].nodes))
    known = plans[0].explanations
    if known is not None and known.scaling is not None:
        text += "\n" + explanations_text(plans[0])
    return text + ("\n" + ranking_text(plans) if len(plans) > 1 else "")


def json_text(plans: Sequence[Plan]) -> str:
    """One JSON document: the plan, or a list of several."""
    from vdsgen.render.serialise import pretty_json

    documents = [plan.model_dump(mode="json") for plan in plans]
    return pretty_json(documents[0] if len(documents) == 1 else documents)
