"""A choice as it is recorded: its settings, and what the planner says of it."""

from __future__ import annotations

import hashlib
import json

from vdsgen import __version__
from vdsgen.ablate.choices import Choice, Choices
from vdsgen.ablate.planning import Planning
from vdsgen.ablate.records import Ablation, PlanEntry, PredictedCosts
from vdsgen.planner.plan_settings import settings_of
from vdsgen.planner.resolve import workload_of
from vdsgen.planner.tables import step_time_of
from vdsgen.spec.canonical import sha256_of
from vdsgen.spec.lab import Pool


def ablation_of(planning: Planning, choices: Choices, steps: int) -> Ablation:
    """What is measured, as `ablation.json` holds it."""
    return Ablation(
        generator=f"vdsgen {__version__}",
        experiment=planning.experiment.name,
        experiment_sha256=sha256_of(planning.experiment),
        lab_sha256=sha256_of(planning.pool),
        profile_sha256=sha256_of(planning.profile),
        pool=planning.pool,
        steps=steps,
        plans=tuple(_entry(choice, planning) for choice in choices.plans),
        refused=tuple(choices.refused),
    )


def _entry(choice: Choice, planning: Planning) -> PlanEntry:
    plan = choice.plan
    workload = workload_of(choice.experiment, planning.pool, planning.profile, plan.nodes)
    bare = workload_of(choice.experiment, without_factors(planning.pool), planning.profile, plan.nodes)
    time, bare_time = step_time_of(plan, workload), step_time_of(plan, bare)
    return PlanEntry(
        name=choice.name,
        asked_for=choice.asked_for,
        fingerprint=choice.fingerprint,
        plan_sha256=hashlib.sha256(choice.files["plan.json"]).hexdigest(),
        settings=settings_of(plan).record(),
        partition=(*(stage.layers[0] for stage in plan.stages), plan.stages[-1].layers[1]),
        global_batch_size=json.loads(choice.files["ds_config.json"])["train_batch_size"],
        planners_choice=choice.planners_choice,
        edited=choice.edited,
        predicted=PredictedCosts(
            step_seconds=time.step_seconds,
            samples_per_second=time.samples_per_second,
            peak_memory_bytes_by_stage=tuple(
                stage.memory.peak_bytes - stage.memory.reserve_bytes for stage in plan.stages
            ),
            parts_seconds={name: max(0.0, value) for name, value in bare_time.split()._asdict().items()},
        ),
    )


def without_factors(pool: Pool) -> Pool:
    """The pool with its measured rates, without what an earlier ablation multiplies their seconds by."""
    assert not isinstance(pool.calibration, str), "the lab file's reader puts figures in a path's place"
    if pool.calibration is None or pool.calibration.step_factors is None:
        return pool
    return pool.model_copy(update={"calibration": pool.calibration.model_copy(update={"step_factors": None})})
