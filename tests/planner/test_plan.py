"""Plans as a whole: deterministic, complete, and explained."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from tests.planner.examples import experiment, pool, profile
from vdsgen import __version__
from vdsgen.errors import InputError
from vdsgen.planner.baseline import naive_baseline
from vdsgen.planner.plan import best_plans, make_plan
from vdsgen.planner.plan_settings import settings_of
from vdsgen.planner.resolve import workload_of
from vdsgen.planner.tables import step_time_of
from vdsgen.planner.text import plan_text, ranking_text
from vdsgen.spec.canonical import canonical_json
from vdsgen.spec.plan import Plan

PRINT_A_PLAN = """
from tests.planner.examples import experiment, pool, profile
from vdsgen.planner.explanations.explained import explained
from vdsgen.planner.plan import make_plan
from vdsgen.planner.resolve import workload_of
from vdsgen.planner.text import explanations_text, plan_text
from vdsgen.spec.canonical import canonical_json
given = experiment(12, 1024), pool(8, 8.0), profile(12, 1024)
plan = make_plan(*given)
print(canonical_json(plan).decode())
print(plan_text(plan, workload_of(*given)))
told = explained(*given, plan)
print(canonical_json(told).decode())
print(explanations_text(told))
import sys
heavy = {"torch", "deepspeed", "numpy", "vdsgen.model", "vdsgen.profile"} & set(sys.modules)
assert not heavy, heavy
"""


def test_same_inputs_give_the_same_bytes_in_every_process() -> None:
    outputs = {
        subprocess.run(
            [sys.executable, "-c", PRINT_A_PLAN],
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            check=True,
        ).stdout
        for seed in ("0", "1", "random")
    }
    assert len(outputs) == 1


@pytest.fixture(scope="module")
def plan() -> Plan:
    return make_plan(experiment(12, 1024), pool(4, 7.0), profile(12, 1024))


def test_a_plan_holds_what_it_was_made_from(plan: Plan) -> None:
    assert plan.generator == f"vdsgen {__version__}"
    assert plan.inputs.pool == pool(4, 7.0)
    assert Plan.model_validate_json(canonical_json(plan)) == plan
    other = make_plan(experiment(12, 1024, global_batch_size=8), pool(4, 7.0), profile(12, 1024))
    assert other.inputs.experiment_sha256 != plan.inputs.experiment_sha256
    assert other.inputs.lab_sha256 == plan.inputs.lab_sha256


def test_a_plan_fits_and_adds_up(plan: Plan) -> None:
    assert plan.model.parameters == profile(12, 1024).parameters
    assert [stage.index for stage in plan.stages] == list(range(plan.parallel.pipeline_parallel_size))
    for stage in plan.stages:
        memory = stage.memory
        assert memory.peak_bytes <= stage.capacity_bytes
        held = (
            memory.reserve_bytes + memory.parameters_bytes + memory.gradients_bytes + memory.optimizer_bytes
        )
        during = memory.activations_bytes + memory.communication_bytes
        assert memory.peak_bytes == held + max(during, memory.workspace_bytes)
    predicted = plan.predicted
    assert predicted.samples_per_second == pytest.approx(
        plan.batch.global_batch_size / predicted.step_seconds
    )


def test_settings_and_times_can_be_had_back_from_a_plan(plan: Plan) -> None:
    workload = workload_of(experiment(12, 1024), pool(4, 7.0), profile(12, 1024))
    assert step_time_of(plan, workload).predicted() == plan.predicted
    assert settings_of(plan).world_size == plan.parallel.world_size


def test_reasons_cover_every_decision(plan: Plan) -> None:
    text = " ".join(plan.reasons)
    for word in ("Pipeline", "ZeRO", "heckpoint", "Micro-batch", "bf16", "fullest stage"):
        assert word in text, text
    reasons = {entry.reason for entry in plan.search.rejected}
    assert {"out_of_memory", "slower", "pipeline-zero", "inexact_sums"} <= reasons
    counted = sum(entry.count for entry in plan.search.rejected)
    assert counted + 1 == plan.search.candidates


def test_the_nearest_miss_is_written_out(plan: Plan) -> None:
    misses = [entry for entry in plan.search.rejected if entry.reason == "out_of_memory"]
    assert misses
    for entry in misses:
        assert set(entry.nearest) == {"settings", "stage", "missing_bytes", "biggest_component"}
        assert entry.nearest["missing_bytes"] > 0


def test_top_plans_differ_and_the_best_comes_first(plan: Plan) -> None:
    plans = best_plans(experiment(12, 1024), pool(4, 7.0), profile(12, 1024), top=5)
    assert plans[0] == plan
    assert len({canonical_json(one) for one in plans}) == 5
    times = [one.predicted.step_seconds for one in plans[1:]]
    assert times == sorted(times)
    assert len(ranking_text(plans).splitlines()) == 7


def test_fp16_plans_carry_their_loss_scale() -> None:
    plan = make_plan(experiment(4, 256), pool(bf16=False), profile(4, 256))
    assert plan.precision.dtype == "fp16"
    assert (plan.precision.initial_loss_scale, plan.precision.loss_scale_window) == (512, 2000)


def test_the_report_fits_a_screen_and_shows_the_baseline(plan: Plan) -> None:
    workload = workload_of(experiment(12, 1024), pool(4, 7.0), profile(12, 1024))
    text = plan_text(plan, workload)
    assert max(len(line) for line in text.splitlines()) <= 140
    assert len(text.splitlines()) < 80
    naive = naive_baseline(workload)
    assert f"{naive.memory.peak_bytes / 1024**3:.2f}" in text
    assert all(reason.split(",")[0][:40] in " ".join(text.split()) for reason in plan.reasons)


def test_the_baseline_is_plain_data_parallelism() -> None:
    naive = naive_baseline(workload_of(experiment(12, 1024), pool(4, 7.0), profile(12, 1024)))
    assert naive.settings.zero_stage == 0
    assert naive.settings.pipeline_parallel_size == 1
    assert naive.settings.activation_checkpoint_interval == 0
    assert naive.settings.micro_batch_size == 1
    # Master weights and two moments in fp32, unsharded.
    assert naive.memory.optimizer_bytes == pytest.approx(12 * profile(12, 1024).parameters, rel=0.01)


def test_what_the_plan_does_itself_is_no_reason_against_another() -> None:
    """A pinned ZeRO-0 adds up gradients in bf16, whatever the micro-batch."""
    pins = {"pipeline_parallel_size": 1, "zero_stage": 0}
    plan = make_plan(experiment(12, 1024, constraints=pins), pool(4, 7.0), profile(12, 1024))
    assert plan.precision.dtype == "bf16"
    assert plan.batch.gradient_accumulation_steps > 1
    assert any(reason.startswith("Micro-batch") for reason in plan.reasons)
    assert not any("in bf16" in reason for reason in plan.reasons), plan.reasons


def test_micro_batches_are_no_larger_than_costs_hold_for() -> None:
    limited = profile(12, 1024).model_copy(update={"most_samples": 1})
    free = make_plan(experiment(12, 1024), pool(4, 24.0), profile(12, 1024))
    assert free.batch.micro_batch_size > 1
    plan = make_plan(experiment(12, 1024), pool(4, 24.0), limited)
    assert plan.batch.micro_batch_size == 1
    assert any("layers loop over samples" in reason for reason in plan.reasons)
    pinned = experiment(12, 1024, constraints={"micro_batch_size": 2})
    with pytest.raises(InputError, match="is planned with micro-batches of 1"):
        make_plan(pinned, pool(4, 24.0), limited)
