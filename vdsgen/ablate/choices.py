"""From selectors to plans: planned, rendered and named, each once; and what is not run, with the reason."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from vdsgen.ablate.existing import existing
from vdsgen.ablate.pinned import pinned
from vdsgen.ablate.planning import Candidate, Planning
from vdsgen.ablate.records import RefusedPlan
from vdsgen.ablate.selectors import OPTION, PinSet, RenderedPlan, Selector
from vdsgen.cost.settings import Settings
from vdsgen.errors import InputError, NoPlanFitsError, Problem
from vdsgen.planner.plan import best_plans, make_plan
from vdsgen.planner.plan_settings import settings_of
from vdsgen.render.render import render_plan
from vdsgen.spec.canonical import canonical_json
from vdsgen.spec.experiment import Experiment
from vdsgen.spec.plan import Plan


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


def choose(selectors: Iterable[Selector], planning: Planning) -> Choices:
    """The plans to run in the order they were asked for, each once.

    Raises InputError where none can run, or a rendered directory cannot be read or trains something else;
    and as `best_plans` where top plans are asked for and the experiment itself cannot be planned for.
    """
    choice = _planners_choice(planning)
    found = Choices()
    taken: dict[str, str] = {}
    for candidate in (one for selector in selectors for one in _candidates(selector, planning)):
        if isinstance(candidate, RefusedPlan):
            found.refused.append(candidate)
            continue
        fingerprint = fingerprint_of(candidate.files, candidate.experiment)
        if fingerprint in taken.values():
            continue
        name = _free_name(candidate.name or settings_name(settings_of(candidate.plan)), taken)
        taken[name] = fingerprint
        found.plans.append(
            Choice(
                name=name,
                asked_for=candidate.asked_for,
                plan=candidate.plan,
                experiment=candidate.experiment,
                files=candidate.files,
                fingerprint=fingerprint,
                planners_choice=fingerprint == choice,
                edited=candidate.edited,
            )
        )
    if not found.plans:
        reasons = [Problem(f"{one.asked_for}: {one.reason}", key=OPTION) for one in found.refused]
        raise InputError([Problem("no plan of those asked for can run", key=OPTION), *reasons])
    return found


def _planners_choice(planning: Planning) -> str | None:
    """The fingerprint of what `vdsgen plan` gives for the experiment; None where it gives nothing."""
    try:
        best = make_plan(planning.experiment, planning.pool, planning.profile)
    except (InputError, NoPlanFitsError):
        return None
    return fingerprint_of(render_plan(best, planning.experiment), planning.experiment)


def _candidates(selector: Selector, planning: Planning) -> list[Candidate | RefusedPlan]:
    if isinstance(selector, PinSet):
        return [pinned(selector, planning)]
    if isinstance(selector, RenderedPlan):
        return [existing(selector, planning)]
    experiment = planning.experiment
    plans = best_plans(experiment, planning.pool, planning.profile, selector.plans)
    return [
        Candidate(f"top {rank}", plan, experiment, render_plan(plan, experiment))
        for rank, plan in enumerate(plans, start=1)
    ]


def fingerprint_of(files: Mapping[str, bytes], experiment: Experiment) -> str:
    """SHA-256 of what a run follows from. Pins are no part of it: they led to the settings, no more."""
    trained = canonical_json(experiment, without=frozenset({"constraints", "name", "objective"}))
    content = (files["ds_config.json"], files.get("hostfile", b""), trained)
    return hashlib.sha256(b"\0".join(content)).hexdigest()


def settings_name(settings: Settings) -> str:
    """`pp2-dp2-zero1-mb1x4-ckpt3-bf16`: no word of it means anything but its setting."""
    interval = settings.activation_checkpoint_interval
    sharing = (("tp", settings.tensor_parallel_size), ("sp", settings.sequence_parallel_size))
    shared = "".join(f"{name}{size}-" for name, size in sharing if size > 1)
    return (
        f"pp{settings.pipeline_parallel_size}-dp{settings.data_parallel_size}-{shared}zero{settings.zero_stage}-"
        f"mb{settings.micro_batch_size}x{settings.gradient_accumulation_steps}-"
        f"{f'ckpt{interval}' if interval else 'nockpt'}-{settings.dtype}"
    )


def _free_name(wanted: str, taken: Mapping[str, str]) -> str:
    """`wanted`, or with the first number that makes it new."""
    number, name = 2, wanted
    while name in taken:
        name, number = f"{wanted}-{number}", number + 1
    return name
