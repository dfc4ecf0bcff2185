"""A rendered directory among the plans to run."""

from __future__ import annotations

import json
import re

from vdsgen.ablate.planning import Candidate, Planning, refused
from vdsgen.ablate.records import RefusedPlan
from vdsgen.ablate.selectors import OPTION, RenderedPlan
from vdsgen.errors import InputError, Problem
from vdsgen.planner.plan_settings import settings_of
from vdsgen.planner.resolve import workload_of
from vdsgen.planner.words import gib
from vdsgen.render.render import render_plan
from vdsgen.review.directory import RenderedDirectory, read_directory
from vdsgen.spec.experiment import Experiment
from vdsgen.spec.run import layout_of

COMPARABLE = ("model", "data")
"""Sections of two experiments that must agree for their samples/s to mean the same."""


def existing(selector: RenderedPlan, planning: Planning) -> Candidate | RefusedPlan:
    """The directory as it is; or why it cannot run on the pool. Raises InputError where it cannot be read, or
    trains something else than the experiment."""
    directory = read_directory(selector.path)
    asked_for = str(selector.path)
    _check_comparable(directory, planning.experiment)
    plan, pool = directory.plan, planning.pool
    workload = workload_of(directory.experiment, pool, planning.profile, plan.nodes)
    ranks = layout_of(directory.ds_config).world_size
    if ranks > pool.world_size:
        return refused(asked_for, f"it needs {ranks} GPUs, pool {pool.name} has {pool.world_size}")
    if not workload.has_rate(plan.precision.dtype):
        return refused(asked_for, f"{workload.gpu_name} has no {plan.precision.dtype}")
    if plan.inputs.pool.hosts != pool.hosts:
        return refused(asked_for, f"its hosts are not those of pool {pool.name}: generate it again")
    capacities = [workload.capacity_of(settings_of(plan), stage.index) for stage in plan.stages]
    fullest = max(plan.stages, key=lambda stage: stage.memory.peak_bytes - capacities[stage.index])
    capacity_bytes = capacities[fullest.index]
    if fullest.memory.peak_bytes > capacity_bytes and not planning.try_anyway:
        return refused(
            asked_for,
            f"it needs {gib(fullest.memory.peak_bytes)} on stage {fullest.index}, "
            f"there are {gib(capacity_bytes)}",
        )
    today = render_plan(plan, directory.experiment)
    edited = dict(directory.ds_config) != json.loads(today["ds_config.json"])
    # Its settings would be the plan's, not the file's.
    name = _as_name(selector.path.resolve().name) if edited else None
    return Candidate(asked_for, plan, directory.experiment, directory.files, edited, name)


def _check_comparable(directory: RenderedDirectory, experiment: Experiment) -> None:
    """Raises InputError where the directory trains another model, other clips or another batch."""
    other = directory.experiment
    different = [key for key in COMPARABLE if getattr(other, key) != getattr(experiment, key)]
    if other.training.global_batch_size != experiment.training.global_batch_size:
        different.append("training.global_batch_size")
    if different:
        keys = ", ".join(different)
        message = f"{directory.label} trains something else than the experiment: {keys} differ"
        raise InputError(
            [Problem(message, key=OPTION, remedy="compare plans of one experiment; generate it again")]
        )


def _as_name(text: str) -> str:
    """A folder's name as one that tables and shells take."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", text).lstrip("._-")[:48] or "edited"
