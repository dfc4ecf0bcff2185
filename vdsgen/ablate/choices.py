"""From selectors to plans: planned, rendered and named, each once; and what is not run, with the reason."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from vdsgen.ablate.records import RefusedPlan
from vdsgen.ablate.selectors import OPTION, PinSet, RenderedPlan, Selector, Top
from vdsgen.cost.settings import Settings
from vdsgen.errors import InputError, NoPlanFitsError, Problem
from vdsgen.planner.plan import best_plans, make_plan
from vdsgen.planner.resolve import workload_of
from vdsgen.planner.tables import settings_of
from vdsgen.planner.words import gib
from vdsgen.render.render import render_plan
from vdsgen.review.directory import RenderedDirectory, read_directory
from vdsgen.spec.canonical import canonical_json, sha256_of
from vdsgen.spec.experiment import Experiment
from vdsgen.spec.lab import Gpu, Pool
from vdsgen.spec.plan import Plan
from vdsgen.spec.profile import ModelProfile

MEMORY_STEP = 1.25
MOST_MEMORY_STEPS = 24
"""How far memory is stretched in search of a plan that would not fit: 1.25^24 is 212 times."""
COMPARABLE = ("model", "data")
"""Sections of two experiments that must agree for their samples/s to mean the same."""


@dataclass(frozen=True, slots=True)
class Choice:
    """A plan to run."""

    name: str
    asked_for: str
    plan: Plan
    experiment: Experiment
    files: Mapping[str, bytes]
    """The rendered directory."""
    fingerprint: str
    planners_choice: bool
    edited: bool


@dataclass(slots=True)
class Choices:
    """The set of an ablation."""

    plans: list[Choice] = field(default_factory=list)
    refused: list[RefusedPlan] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Planning:
    """What every plan of the set is made from."""

    experiment: Experiment
    """Resolved."""
    pool: Pool
    profile: ModelProfile
    try_anyway: bool
    """Run plans that do not fit by what is predicted."""


def choose(selectors: Sequence[Selector], planning: Planning) -> Choices:
    """The plans to run in the order they were asked for, each once.

    Raises InputError where none can run, or a rendered directory cannot be read or trains something else;
    and as `best_plans` where top plans are asked for and the experiment itself cannot be planned for.
    """
    try:
        best = make_plan(planning.experiment, planning.pool, planning.profile)
        choice = fingerprint_of(render_plan(best, planning.experiment), planning.experiment)
    except (InputError, NoPlanFitsError):
        choice = ""
    found = Choices()
    taken: dict[str, str] = {}
    for selector in selectors:
        for candidate in _candidates(selector, planning, found.refused):
            asked_for, plan, experiment, files, edited, wanted_name = candidate
            fingerprint = fingerprint_of(files, experiment)
            if fingerprint in taken.values():
                continue
            name = _free_name(wanted_name or settings_name(settings_of(plan)), taken)
            taken[name] = fingerprint
            found.plans.append(
                Choice(name, asked_for, plan, experiment, files, fingerprint, fingerprint == choice, edited)
            )
    if not found.plans:
        reasons = [Problem(f"{one.asked_for}: {one.reason}", key=OPTION) for one in found.refused]
        raise InputError([Problem("no plan of those asked for can run", key=OPTION), *reasons])
    return found


_Candidate = tuple[str, Plan, Experiment, Mapping[str, bytes], bool, str | None]
"""Asked for, plan, experiment, files, edited, wanted name."""


def _candidates(selector: Selector, planning: Planning, refused: list[RefusedPlan]) -> Iterator[_Candidate]:
    if isinstance(selector, Top):
        experiment = planning.experiment
        plans = best_plans(experiment, planning.pool, planning.profile, selector.plans)
        for rank, plan in enumerate(plans, start=1):
            yield f"top {rank}", plan, experiment, render_plan(plan, experiment), False, None
    elif isinstance(selector, PinSet):
        outcome = _pinned(selector, planning)
        if isinstance(outcome, RefusedPlan):
            refused.append(outcome)
        else:
            yield outcome
    else:
        rendered = _rendered(selector, planning)
        if isinstance(rendered, RefusedPlan):
            refused.append(rendered)
        else:
            yield rendered


def _pinned(selector: PinSet, planning: Planning) -> _Candidate | RefusedPlan:
    pins = planning.experiment.constraints.model_copy(update=dict(selector.pins))
    experiment = planning.experiment.model_copy(update={"constraints": pins})
    try:
        plan = make_plan(experiment, planning.pool, planning.profile)
    except InputError as error:
        return _refused(selector.asked_for, "; ".join(problem.message for problem in error.problems))
    except NoPlanFitsError as error:
        misfit = _plan_that_does_not_fit(experiment, planning) if planning.try_anyway else None
        if misfit is None:
            return _refused(selector.asked_for, error.message)
        plan = misfit
    return selector.asked_for, plan, experiment, render_plan(plan, experiment), False, selector.name


def _plan_that_does_not_fit(experiment: Experiment, planning: Planning) -> Plan | None:
    """The best plan under the least stretched memory that something fits; None where rules refuse all.

    The plan says what there really is: its pool and capacities are the lab's.
    """
    workload = workload_of(experiment, planning.pool, planning.profile)
    assert isinstance(workload.pool.gpu, Gpu)
    factor = 1.0
    for _ in range(MOST_MEMORY_STEPS):
        factor *= MEMORY_STEP
        try:
            plan = make_plan(experiment, _stretched(workload.pool, factor), planning.profile)
        except NoPlanFitsError:
            continue
        real = plan.inputs.model_copy(update={"pool": planning.pool, "lab_sha256": sha256_of(planning.pool)})
        stages = tuple(
            stage.model_copy(update={"capacity_bytes": workload.capacity_bytes}) for stage in plan.stages
        )
        return plan.model_copy(update={"inputs": real, "stages": stages})
    return None


def _stretched(pool: Pool, factor: float) -> Pool:
    """The same pool with more memory: its GPUs', or the host's where ranks share it."""
    assert isinstance(pool.gpu, Gpu)
    if pool.gpu.memory_gib is None:
        return pool.model_copy(update={"host_memory_gib": pool.host_memory_gib * factor})
    gpu = pool.gpu.model_copy(update={"memory_gib": pool.gpu.memory_gib * factor})
    return pool.model_copy(update={"gpu": gpu})


def _rendered(selector: RenderedPlan, planning: Planning) -> _Candidate | RefusedPlan:
    directory = read_directory(selector.path)
    asked_for = str(selector.path)
    _check_comparable(directory, planning.experiment)
    plan, pool = directory.plan, planning.pool
    if plan.parallel.world_size > pool.world_size:
        needs = f"it needs {plan.parallel.world_size} GPUs, pool {pool.name} has {pool.world_size}"
        return _refused(asked_for, needs)
    capacity_bytes = workload_of(directory.experiment, pool, planning.profile).capacity_bytes
    fullest = max(plan.stages, key=lambda stage: stage.memory.peak_bytes)
    if fullest.memory.peak_bytes > capacity_bytes and not planning.try_anyway:
        return _refused(
            asked_for,
            f"it needs {gib(fullest.memory.peak_bytes)} on stage {fullest.index}, "
            f"there are {gib(capacity_bytes)}",
        )
    today = render_plan(plan, directory.experiment)
    edited = dict(directory.ds_config) != json.loads(today["ds_config.json"])
    # Its settings would be the plan's, not the file's.
    name = _as_name(selector.path.resolve().name) if edited else None
    return asked_for, plan, directory.experiment, directory.files, edited, name


def _refused(asked_for: str, reason: str) -> RefusedPlan:
    return RefusedPlan(asked_for=asked_for, reason=reason)


def _check_comparable(directory: RenderedDirectory, experiment: Experiment) -> None:
    """Raises InputError where the directory trains another model, other clips or another batch."""
    other = directory.experiment
    different = [key for key in COMPARABLE if getattr(other, key) != getattr(experiment, key)]
    if other.training.global_batch_size != experiment.training.global_batch_size:
        different.append("training.global_batch_size")
    if different:
        message = f"{directory.path} trains something else than the experiment: {', '.join(different)} differ"
        raise InputError(
            [Problem(message, key=OPTION, remedy="compare plans of one experiment; generate it again")]
        )


def fingerprint_of(files: Mapping[str, bytes], experiment: Experiment) -> str:
    """SHA-256 of what a run follows from. Pins are no part of it: they led to the settings, no more."""
    trained = canonical_json(experiment, without=frozenset({"constraints", "name", "objective"}))
    return _sha256(b"\0".join((files["ds_config.json"], files.get("hostfile", b""), trained)))


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def settings_name(settings: Settings) -> str:
    """`pp2-dp2-zero1-mb1x4-ckpt3-bf16`: no word of it means anything but its setting."""
    interval = settings.activation_checkpoint_interval
    return (
        f"pp{settings.pipeline_parallel_size}-dp{settings.data_parallel_size}-zero{settings.zero_stage}-"
        f"mb{settings.micro_batch_size}x{settings.gradient_accumulation_steps}-"
        f"{f'ckpt{interval}' if interval else 'nockpt'}-{settings.dtype}"
    )


def _as_name(text: str) -> str:
    """A folder's name as one that tables and shells take."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", text).lstrip("._-")[:48] or "edited"


def _free_name(wanted: str, taken: Mapping[str, str]) -> str:
    """`wanted`, or with the first number that makes it new."""
    number, name = 2, wanted
    while name in taken:
        name, number = f"{wanted}-{number}", number + 1
    return name
