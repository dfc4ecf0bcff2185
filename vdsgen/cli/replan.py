"""`vdsgen launch --resume --replan`: a plan for the GPUs that are left, beside the run that it continues."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from vdsgen.errors import InputError, NoPlanFitsError, VdsgenError

if TYPE_CHECKING:
    from vdsgen.review.directory import RenderedDirectory
    from vdsgen.spec.experiment import Experiment
    from vdsgen.spec.lab import Pool
    from vdsgen.spec.plan import Plan


def replanned(
    directory: Path, run: Path, *, gpus: int | None, lab: Path | None, out: Path | None, dry_run: bool
) -> Path | None:
    """Plans what `directory` trains for the GPUs that are left, says what changes, and writes it into `out`
    or the run's own folder of plans; returns where. None: nothing was to be written.

    Raises VdsgenError where `run` cannot be continued, nothing says which GPUs are left, or nothing fits."""
    from vdsgen.cli.generate import summary
    from vdsgen.launch.preflight import check_output
    from vdsgen.render.render import render_plan
    from vdsgen.render.write import write_files
    from vdsgen.review.diff import diff_sides
    from vdsgen.review.diff_text import as_text
    from vdsgen.review.directory import read_directory
    from vdsgen.spec.run_plans import next_plan, recorded_plans

    check_output(run, resume=True)
    given = read_directory(directory)
    before = read_directory(next(reversed(recorded_plans(run)), directory))
    plan, experiment = _plan_for(given, before.plan, _pools_left(given.plan.inputs.pool, gpus, lab))
    files, target = render_plan(plan, experiment), out or next_plan(run)
    if not dry_run:
        write_files(target, files)
        now = read_directory(target)
    else:
        with tempfile.TemporaryDirectory() as scratch:
            write_files(Path(scratch), files)
            now = replace(read_directory(Path(scratch)), label=str(target))
    click.echo(as_text(diff_sides(before, now)))
    click.echo(f"{target}: {'would be written' if dry_run else ', '.join(files)}\n  {summary(plan)}")
    return None if dry_run else target


def _pools_left(pool: Pool, gpus: int | None, lab: Path | None) -> list[Pool]:
    """One that is the run's own, or the lab's of that name; else all of the lab's."""
    from vdsgen.planner.reduced import reduced_pool

    if lab is None:
        return [reduced_pool(pool, _gpus_here(pool) if gpus is None else gpus)]
    from vdsgen.catalog.inputs import open_lab

    pools = open_lab(lab).pools
    return [one for one in pools if one.name == pool.name] or list(pools)


def _gpus_here(pool: Pool) -> int:
    """Of this machine, where the pool is one node and no scheduler's. Raises VdsgenError elsewhere."""
    import sys

    from vdsgen.launch.preflight import devices_here

    if pool.node_count > 1 or pool.on_processors or pool.launcher in ("slurm", "kubernetes"):
        raise VdsgenError(
            f"which GPUs of pool {pool.name} are left cannot be seen from here",
            remedy="say it: --gpus N, or --lab LAB with a lab file of what is left",
        )
    name, count = devices_here(Path(sys.executable))
    if count == 0:
        raise VdsgenError(
            f"DeepSpeed finds no GPU here (accelerator: {name})",
            remedy="say what is left: --gpus N, or --lab LAB with a lab file of it",
        )
    return count


def _plan_for(given: RenderedDirectory, before: Plan, pools: Sequence[Pool]) -> tuple[Plan, Experiment]:
    """The best plan that keeps most of the experiment's demands. Raises the error of the least of them where
    nothing fits."""
    from vdsgen.cli.plan import plans_by_pool
    from vdsgen.cli.profiles import find_profile

    profile = find_profile(given.experiment)
    failure: VdsgenError | None = None
    for experiment, note in _attempts(given.experiment, before):
        try:
            ((_, (plan, *_)), *_) = plans_by_pool(experiment, pools, profile, top=1)
        except (InputError, NoPlanFitsError) as error:
            failure = error
            continue
        if note:
            click.echo(f"note: {note}")
        return plan, experiment
    assert failure is not None, "there is an attempt"
    raise failure


def _attempts(experiment: Experiment, before: Plan) -> Iterator[tuple[Experiment, str]]:
    """What is planned for, one after the other until something fits: in the precision that the run has, with
    all pins; without those of layouts; in any precision that the experiment allows."""
    from vdsgen.planner.reduced import without_size_pins

    training = experiment.training.model_copy(update={"precision": before.precision.dtype})
    pinned = experiment.model_copy(update={"training": training})
    yield pinned, ""
    freed, names = without_size_pins(pinned)
    dropped = f"what is left does not meet constraints.{', '.join(names)}: planned without"
    if names:
        yield freed, dropped
    if experiment.training.precision == "auto":
        in_any = f"nothing fits in {before.precision.dtype}: planned in any precision"
        yield without_size_pins(experiment)[0], f"{dropped}; {in_any}" if names else in_any
