"""How often plans save, what that costs, and what the copies for asynchronous saves take."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.cli.rendering import EXPERIMENT, LAB, run
from tests.planner.examples import GIB, experiment, pool, profile
from vdsgen.errors import InputError, NoPlanFitsError
from vdsgen.planner.plan import make_plan
from vdsgen.planner.resolve import workload_of
from vdsgen.planner.text import plan_text
from vdsgen.spec.canonical import sha256_of
from vdsgen.spec.checkpoint_interval import daly_seconds, overhead_fraction
from vdsgen.spec.failures import CheckpointStorage, Failures
from vdsgen.spec.plan import Plan, PlannedSaving
from vdsgen.spec.training import Saving

WRITES_HALF_A_GB = CheckpointStorage(write_gb_per_second=0.5)
FAILS_AFTER = Failures(mean_hours_between_failures_per_gpu=100.0)


def planned(saving: Saving | None = None, steps: int = 100_000, **on: Any) -> Plan:
    """Of a pool of 4 GPUs on one node, unless told otherwise."""
    of = experiment(
        12, 1024, steps=steps, saving=saving or Saving(), constraints={"pipeline_parallel_size": 2}
    )
    return make_plan(of, pool(**on), profile(12, 1024))


def saving_of(plan: Plan) -> PlannedSaving:
    assert plan.saving is not None
    return plan.saving


def test_nothing_is_said_where_the_lab_says_nothing() -> None:
    plan = planned()
    assert plan.saving is None
    assert "saving" not in plan.model_dump(mode="json")
    assert not any("Saving" in reason for reason in plan.reasons)


def test_auto_is_dalys_interval() -> None:
    plan = planned(Saving(every_steps="auto"), failures=FAILS_AFTER, checkpoint_storage=WRITES_HALF_A_GB)
    saving, step = saving_of(plan), plan.predicted.step_seconds
    parameters, data = profile(12, 1024).parameters, plan.parallel.data_parallel_size
    # bf16 weights, fp32 masters and two moments, each once: ZeRO-1's optimizer shares them out.
    assert plan.zero.stage == 1
    assert saving.checkpoint_bytes == pytest.approx(14 * parameters, rel=1e-3)
    assert saving.write_seconds == pytest.approx(saving.checkpoint_bytes / 0.5e9)
    assert saving.blocking_seconds == saving.write_seconds
    assert saving.between_failures_seconds == 3600 * 100.0 / 4
    assert saving.write_seconds is not None
    optimum = daly_seconds(saving.write_seconds, saving.between_failures_seconds)
    assert abs(saving.every_steps * step - optimum) <= step
    assert saving.every_steps == saving.best_every_steps
    expected = overhead_fraction(
        saving.every_steps * step,
        saving.write_seconds,
        saving.between_failures_seconds,
        saving.write_seconds,  # reading it again
    )
    assert saving.overhead_fraction == pytest.approx(expected)
    assert f"Saving every {saving.every_steps} steps costs least (Daly 2006)" in plan.reasons[-1]
    assert data == 2


def test_a_given_interval_keeps_and_tells_what_it_costs() -> None:
    on: dict[str, Any] = {"failures": FAILS_AFTER, "checkpoint_storage": WRITES_HALF_A_GB}
    auto, rare = planned(Saving(every_steps="auto"), **on), planned(Saving(every_steps=50_000), **on)
    saving = saving_of(rare)
    assert saving.every_steps == 50_000
    assert saving.best_every_steps == saving_of(auto).every_steps
    assert saving.best_overhead_fraction == saving_of(auto).overhead_fraction
    assert saving.overhead_fraction is None or saving.overhead_fraction > 0.05
    assert "Saving every 50000 steps is asked for" in rare.reasons[-1]
    assert "every_steps: auto takes it" in rare.reasons[-1]
    near = planned(Saving(every_steps=saving_of(auto).every_steps + 1), **on)
    assert "by little" in near.reasons[-1]


def test_auto_needs_figures_and_names_those_that_lack() -> None:
    with pytest.raises(InputError) as caught:
        planned(Saving(every_steps="auto"), failures=FAILS_AFTER)
    (problem,) = caught.value.problems
    assert problem.key == "training.saving.every_steps"
    assert "says nothing of checkpoint_storage" in problem.message
    with pytest.raises(InputError, match="says nothing of failures and checkpoint_storage"):
        planned(Saving(every_steps="auto"))


def test_without_failures_only_the_share_of_saving_is_known() -> None:
    saving = saving_of(planned(checkpoint_storage=WRITES_HALF_A_GB))
    assert saving.saving_fraction is not None
    assert saving.overhead_fraction is None


def test_nodes_write_side_by_side_until_all_share_what_there_is() -> None:
    shared = CheckpointStorage(write_gb_per_second=0.5, total_write_gb_per_second=0.5)
    one, two, throttled = (
        saving_of(planned(gpus=gpus, nodes=nodes, checkpoint_storage=storage))
        for gpus, nodes, storage in ((4, 1, WRITES_HALF_A_GB), (2, 2, WRITES_HALF_A_GB), (2, 2, shared))
    )
    assert one.write_seconds is not None and two.write_seconds is not None
    assert 0.5 <= two.write_seconds / one.write_seconds < 0.6
    assert throttled.write_seconds == pytest.approx(one.write_seconds)


@pytest.mark.parametrize(
    ("failures", "gpus", "nodes", "seconds"),
    [
        (Failures(mean_hours_between_failures_per_gpu=8.0), 4, 1, 7200.0),
        (Failures(mean_hours_between_failures_per_node=8.0), 4, 1, 28800.0),
        (Failures(mean_hours_between_failures_per_node=8.0), 2, 2, 14400.0),
    ],
)
def test_many_fail_more_often(failures: Failures, gpus: int, nodes: int, seconds: float) -> None:
    plan = planned(gpus=gpus, nodes=nodes, failures=failures, checkpoint_storage=WRITES_HALF_A_GB)
    assert plan.parallel.world_size == gpus * nodes
    assert saving_of(plan).between_failures_seconds == seconds


def test_asynchronous_saves_hold_training_up_for_the_copy_and_keep_it() -> None:
    on: dict[str, Any] = {"failures": FAILS_AFTER, "checkpoint_storage": WRITES_HALF_A_GB}
    waiting, beside = (
        saving_of(planned(Saving(every_steps="auto", asynchronous=asynchronous), **on))
        for asynchronous in (False, True)
    )
    assert beside.write_seconds == waiting.write_seconds
    assert beside.blocking_seconds is not None and waiting.blocking_seconds is not None
    assert beside.blocking_seconds < waiting.blocking_seconds / 5
    assert beside.every_steps < waiting.every_steps
    assert beside.overhead_fraction is not None and waiting.overhead_fraction is not None
    assert beside.overhead_fraction < waiting.overhead_fraction
    parameters = profile(12, 1024).parameters
    # Each stage's first data-parallel rank: bf16 weights, and half of what is shared out.
    assert sum(beside.copied_bytes_by_stage) == pytest.approx((2 + 12 / 2) * parameters, rel=1e-3)
    assert waiting.copied_bytes_by_stage == ()


def test_copies_must_fit_into_host_memory() -> None:
    small = pool(4).model_copy(update={"host_memory_gib": 1.0})
    pins = {
        "pipeline_parallel_size": 2, "zero_stage": 1, "micro_batch_size": 1, "tensor_parallel_size": 1,
        "sequence_parallel_size": 1,
    }  # fmt: skip
    of = experiment(12, 1024, precision="bf16", constraints=pins)
    assert make_plan(of, small, profile(12, 1024)), "nothing is kept in host memory"
    training = of.training.model_copy(update={"saving": Saving(asynchronous=True)})
    with pytest.raises(NoPlanFitsError, match="GiB of a node's host memory") as caught:
        make_plan(of.model_copy(update={"training": training}), small, profile(12, 1024))
    assert "set training.saving.asynchronous: false" in str(caught.value.remedy)
    plan = make_plan(of.model_copy(update={"training": training}), pool(4), profile(12, 1024))
    assert max(saving_of(plan).copied_bytes_by_stage) < 16 * GIB


def test_the_screen_tells_both_costs() -> None:
    on = pool(failures=FAILS_AFTER, checkpoint_storage=WRITES_HALF_A_GB)
    of = experiment(12, 1024, steps=100_000, saving=Saving(every_steps="auto"))
    plan = make_plan(of, on, profile(12, 1024))
    text = plan_text(plan, workload_of(of, on, profile(12, 1024)))
    assert f"every {saving_of(plan).every_steps} steps, " in text
    assert "failures" in text and "on top of the run" in text


FIGURES = """\
    failures: {mean_hours_between_failures_per_gpu: 100}
    checkpoint_storage: {write_gb_per_second: 0.5}
"""


def test_what_is_rendered_has_the_number_and_is_fresh(tmp_path: Path) -> None:
    lab = LAB.replace("    host_memory_gib: 64\n", f"    host_memory_gib: 64\n{FIGURES}", 1)
    (tmp_path / "lab.yaml").write_text(lab)
    text = EXPERIMENT.replace("steps: 100\n", "steps: 1000000\n  saving: {every_steps: auto}\n")
    (tmp_path / "experiment.yaml").write_text(text)
    out = tmp_path / "out"
    made = run(
        "generate",
        tmp_path / "experiment.yaml",
        "--lab",
        tmp_path / "lab.yaml",
        "--out",
        out,
        "--pool",
        "four",
    )
    assert made.exit_code == 0, made.output
    plan = Plan.model_validate_json((out / "plan.json").read_bytes())
    every = saving_of(plan).every_steps
    assert 1 < every < 1_000_000
    assert f"every_steps: {every}" in (out / "train.yaml").read_text()
    assert f"Saving every {every} steps costs least" in (out / "PLAN.md").read_text()
    assert run("check", out).exit_code == 0
    assert plan.inputs.lab_sha256 == sha256_of(plan.inputs.pool)


def test_an_interval_far_from_the_best_is_warned_of(tmp_path: Path) -> None:
    lab = LAB.replace("    host_memory_gib: 64\n", f"    host_memory_gib: 64\n{FIGURES}", 1)
    (tmp_path / "lab.yaml").write_text(lab)
    text = EXPERIMENT.replace("steps: 100\n", "steps: 1000000\n  saving: {every_steps: 1}\n")
    (tmp_path / "experiment.yaml").write_text(text)
    made = run("plan", tmp_path / "experiment.yaml", "--lab", tmp_path / "lab.yaml", "--pool", "four")
    assert made.exit_code == 0, made.output
    assert "warning: pool four: Saving every 1 steps is asked for" in made.stderr
