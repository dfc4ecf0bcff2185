"""Whether the loss curve changes, whether a run can go on, and what of the learning rate."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.render.plans import plan_of, pool_of, small_experiment
from tests.review.configs import ABSENT, BASE, config, diff_of
from tests.review.directories import edit, rendered
from vdsgen.errors import VdsgenError
from vdsgen.review.diff import Diff, diff_sides
from vdsgen.review.directory import read_directory
from vdsgen.spec.continuing import check_continues
from vdsgen.spec.experiment import Experiment
from vdsgen.spec.optimization import AdamW, Schedule
from vdsgen.spec.plan import Plan
from vdsgen.spec.rendered import read_rendered


def zero(stage: int, **more: Any) -> dict[str, Any]:
    return config(zero_optimization={"stage": stage, **more})


ADAMW = BASE["optimizer"]["params"]
WARM = {"type": "WarmupLR", "params": {"warmup_num_steps": 10}}
STAGE = "zero_optimization.stage"
DEVICE = "zero_optimization.offload_optimizer.device"


@pytest.mark.parametrize(
    ("new", "curve", "because"),
    [
        (zero(3), "rounding", STAGE),
        (config(gradient_clipping=0.5), "different", "gradient_clipping"),
        (config(communication_data_type="fp32"), "rounding", "communication_data_type"),
        (config(data_types={"grad_accum_dtype": "fp32"}), "rounding", "data_types.grad_accum_dtype"),
        (zero(2, overlap_comm=True), "identical", None),
        (zero(2, allgather_bucket_size=1000), "identical", None),
        (zero(2, reduce_bucket_size=1000), "rounding", "zero_optimization.reduce_bucket_size"),
        (zero(2, offload_optimizer={"device": "cpu"}), "rounding", DEVICE),
        (config(activation_checkpointing={"cpu_checkpointing": True}), "identical", None),
        (config(wall_clock_breakdown=True, wandb={"enabled": True}), "identical", None),
        (config(bf16=ABSENT), "different", "bf16.enabled"),
        (config(scheduler=WARM), "different", "scheduler.type"),
        (config(optimizer={"type": "AdamW", "params": {**ADAMW, "betas": [0.9, 0.95]}}), "different",
         "optimizer.params.betas"),
        (config(of_my_own=1), "identical", None),
    ],
)  # fmt: skip
def test_the_loss_curve(new: dict[str, Any], curve: str, because: str | None) -> None:
    found = diff_of(config(), new).verdicts
    assert found.loss_curve == curve
    assert found.loss_curve_because[:1] == (() if because is None else (f"ds_config.json:{because}",))


def test_two_ranks_add_up_in_one_order_only() -> None:
    old = config(train_batch_size=16)
    new = {**old, "zero_optimization": {"stage": 2, "reduce_bucket_size": 1000}}
    assert diff_of(old, new).verdicts.loss_curve == "identical"


@pytest.mark.parametrize(
    ("old", "new", "verdict", "because"),
    [
        (config(), config(gradient_clipping=0.5), "as_is", ()),
        (config(), zero(2, offload_optimizer={"device": "cpu"}), "as_is", ()),
        (zero(1), zero(2), "as_is", ()),
        (zero(2), zero(3), "impossible", (STAGE,)),
        (zero(3), zero(1), "impossible", (STAGE,)),
        (zero(0), zero(1), "impossible", (STAGE,)),
        (zero(3), zero(0), "impossible", (STAGE,)),
        (config(), config(bf16=ABSENT), "conversion", ("bf16.enabled",)),
        (config(), config(bf16=ABSENT, fp16={"enabled": True}), "conversion",
         ("bf16.enabled", "fp16.enabled")),
        (zero(0), {**zero(0), "bf16": {"enabled": False}}, "impossible", ("bf16.enabled",)),
        (config(), config(train_batch_size=64), "conversion", ("train_batch_size",)),
        (zero(0), {**zero(0), "train_batch_size": 64}, "as_is", ()),
        (zero(3), zero(3, sub_group_size=10**6), "conversion", ("zero_optimization.sub_group_size",)),
        (zero(2), zero(2, round_robin_gradients=True), "impossible",
         ("zero_optimization.round_robin_gradients",)),
        (config(), config(optimizer={"type": "Lion", "params": {"lr": 1e-4}}), "impossible",
         ("optimizer.type",)),
        (config(), config(optimizer={"type": "Adam", "params": {**ADAMW, "adam_w_mode": False}}), "as_is",
         ()),
        (config(), config(scheduler=WARM), "impossible", ("scheduler.type",)),
        (config(scheduler=WARM), config(), "as_is", ()),
        (zero(3), zero(3, offload_optimizer={"device": "nvme", "nvme_path": "/x"}), "impossible", (DEVICE,)),
        (config(), config(checkpoint={"load_universal": True}), "conversion", ("checkpoint.load_universal",)),
    ],
)  # fmt: skip
def test_resuming_as_deepspeed_itself_does(
    old: dict[str, Any], new: dict[str, Any], verdict: str, because: tuple[str, ...]
) -> None:
    found = diff_of(old, new).verdicts.resume
    assert found.verdict == verdict
    assert found.because == tuple(f"ds_config.json:{key}" for key in because)


def test_scaling_rules_start_from_the_rate_that_old_reaches() -> None:
    old = config(scheduler={"type": "WarmupDecayLR", "params": {"warmup_max_lr": 3e-4}})
    new = config(train_batch_size=128, gradient_accumulation_steps=8)
    found = diff_of(old, new).verdicts.learning_rate
    assert found is not None
    assert (found.batch_ratio, found.old) == (4, 3e-4)
    assert found.linear == pytest.approx(1.2e-3)
    assert found.square_root == pytest.approx(6e-4)


def of_directories(
    tmp_path: Path, old: Plan, new: Plan, before: Experiment | None = None, after: Experiment | None = None
) -> Diff:
    return diff_sides(rendered(tmp_path / "old", old, before), rendered(tmp_path / "new", new, after))


def test_a_layout_is_converted_and_its_keys_are_named(tmp_path: Path) -> None:
    found = of_directories(
        tmp_path, plan_of(accumulation=4), plan_of(pipeline=1, data=4, accumulation=2)
    ).verdicts.resume
    assert found.verdict == "conversion"
    assert set(found.because) >= {
        "ds_config.json:pipeline.stages",
        "plan.json:parallel.data_parallel_size",
        "ds_config.json:pipeline.partition",
    }


def test_what_the_trainer_refuses_is_impossible(tmp_path: Path) -> None:
    plan = plan_of(accumulation=4)
    for name, experiment in {
        "training.seed": small_experiment(seed=7),
        "training.lora.rank": small_experiment(method="lora"),
    }.items():
        found = of_directories(tmp_path / name, plan, plan, small_experiment(), experiment).verdicts.resume
        assert found.verdict == "impossible"
        assert any(key.startswith("train.yaml:training.") for key in found.because)


def test_other_rates_go_on_from_here(tmp_path: Path) -> None:
    plan = plan_of(accumulation=4)
    later = small_experiment(optimizer=AdamW(learning_rate=3e-4), schedule=Schedule(type="cosine"))
    assert of_directories(tmp_path, plan, plan, small_experiment(), later).verdicts.resume.verdict == "as_is"


@pytest.mark.parametrize("change", ["seed", "rate", "stage", "nothing", "batch"])
def test_it_agrees_with_what_a_launch_decides(tmp_path: Path, change: str) -> None:
    """`vdsgen launch --resume` refuses by `check_continues`: so must the verdict."""
    plan, experiment = plan_of(accumulation=4), small_experiment()
    after = {
        "seed": small_experiment(seed=9), "rate": small_experiment(optimizer=AdamW(learning_rate=1e-3)),
    }.get(change, experiment)  # fmt: skip
    new = plan_of(accumulation=4, zero_stage=0) if change == "stage" else plan
    result = of_directories(tmp_path, plan, new, experiment, after)
    if change == "batch":
        for key in ('"train_batch_size": 8', '"gradient_accumulation_steps": 4'):
            name, _, number = key.partition(": ")
            edit(tmp_path / "new" / "ds_config.json", key, f"{name}: {2 * int(number)}")
        result = diff_sides(read_directory(tmp_path / "old"), read_directory(tmp_path / "new"))
    before, now = (replace(read_rendered(tmp_path / side), path=Path(side)) for side in ("old", "new"))
    try:
        check_continues(before, now)
        refused = False
    except VdsgenError:
        refused = True
    assert refused == (result.verdicts.resume.verdict == "impossible")


def test_another_gpu_rounds_otherwise(tmp_path: Path) -> None:
    old, new = (plan_of(accumulation=4, pool=pool_of(1, 4, gpu=gpu)) for gpu in ("rtx-3090", "rtx-4090"))
    assert of_directories(tmp_path, old, new).verdicts.loss_curve == "rounding"


def test_more_steps_at_a_constant_rate_continue_the_same_curve(tmp_path: Path) -> None:
    plan = plan_of(accumulation=4)
    longer = small_experiment(steps=20)
    found = of_directories(tmp_path / "a", plan, plan, small_experiment(), longer).verdicts
    assert (found.loss_curve, found.resume.verdict) == ("identical", "as_is")
    decay = Schedule(type="linear", warmup_steps=2)
    before, after = (small_experiment(steps=steps, schedule=decay) for steps in (10, 20))
    found = of_directories(tmp_path / "b", plan, plan, before, after).verdicts
    assert found.loss_curve == "different"
