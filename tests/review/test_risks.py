"""What a reviewer should not miss is said, with the values, and nothing else is."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.render.plans import GIB, plan_of, pool_of, small_experiment
from tests.review.configs import ABSENT, BASE, config, diff_of
from tests.review.directories import rendered
from tests.review.test_diff import predicted
from vdsgen.review.diff import Diff, diff_sides
from vdsgen.spec.experiment import Experiment
from vdsgen.spec.plan import Plan
from vdsgen.spec.training import Saving

ADAMW = BASE["optimizer"]["params"]
WARM = {"type": "WarmupLR", "params": {"warmup_num_steps": 100, "warmup_max_lr": 1e-4}}
HALF = config(bf16=ABSENT, fp16={"enabled": True, "initial_scale_power": 9})


def zero(stage: int, **more: Any) -> dict[str, Any]:
    return config(zero_optimization={"stage": stage, **more})


def ids(result: Diff) -> set[str]:
    return {risk.id for risk in result.risks}


@pytest.mark.parametrize(
    ("old", "new", "risk", "says"),
    [
        (config(), config(train_batch_size=64, gradient_accumulation_steps=4),
         "batch-without-learning-rate", "2 times as many samples"),
        (config(), config(optimizer={"type": "AdamW", "params": {**ADAMW, "lr": 1e-3}}),
         "learning-rate-up", "from 0.0001 to 0.001, 10 times"),
        (config(), HALF, "fp16-overflows", "from bf16 to fp16"),
        (HALF, config(bf16=ABSENT, fp16={"enabled": True}), "loss-scale-starts-high", "2^16"),
        (zero(2), {**zero(2), "data_types": {"grad_accum_dtype": "bf16"}, "gradient_accumulation_steps": 2},
         None, ""),
        ({**zero(2), "data_types": {"grad_accum_dtype": "fp32"}}, zero(2), "gradients-add-up-in-bf16",
         "of 2 micro-batches are added up in bf16, in fp32 before"),
        (config(), config(gradient_clipping=0.0), "no-gradient-clipping", "at 1 before"),
        (config(scheduler=WARM), config(), "no-warm-up", "over 100 steps"),
        (config(), config(train_batch_size=32, gradient_accumulation_steps=1), "ranks-without-batch",
         "8 GPUs share the batch of 32 that 4 had"),
        (zero(2), zero(2, offload_optimizer={"device": "cpu"}), "offload-needs-host-memory", "12 bytes"),
        (zero(2), zero(3), "weights-stay-sharded", "save_16bit_model"),
        (zero(3), zero(3, zero_quantized_gradients=True), "quantised-exchange", "int4"),
        (config(), config(optimizer={"type": "AdamW", "params": {**ADAMW, "betas": [0.8, 0.9]}}),
         "resume-keeps-old-values", "goes on with OLD's betas"),
        (config(), config(checkpoint={"load_universal": True}), "loads-universal-only", "converted"),
        ({**zero(1), "pipeline": {"stages": 2}}, {**zero(2), "pipeline": {"stages": 2}},
         "zero-with-pipeline", "ZeRO stage 2 with 2 pipeline stages"),
        ({**zero(1), "pipeline": {"activation_checkpoint_interval": 2}}, zero(1),
         "activation-checkpointing-off", "every 2 blocks before"),
        (config(), config(comet={"enabled": True, "api_key": "abcdef123"}), "secret-in-file", "api_key"),
        (config(), config(zero_optimization={"stage": 2, "overlap_com": True}), "unknown-key", "overlap_com"),
    ],
)  # fmt: skip
def test_a_change_has_its_risk(old: dict[str, Any], new: dict[str, Any], risk: str | None, says: str) -> None:
    result = diff_of(old, new)
    if risk is None:
        assert "gradients-add-up-in-bf16" not in ids(result)
        return
    found = next(one for one in result.risks if one.id == risk)
    assert says in found.message
    assert found.remedy
    assert all(":" in key for key in found.keys)
    assert risk not in ids(diff_of(new, new)), "of nothing that changes"


def test_a_secret_is_not_repeated() -> None:
    result = diff_of(config(), config(comet={"enabled": True, "api_key": "abcdef123"}))
    assert "abcdef123" not in repr(result.changes) + repr(result.risks)


def test_what_lint_found_before_is_no_risk_of_the_change() -> None:
    old = config(of_my_own=1)
    assert "unknown-key" not in ids(diff_of(old, {**old, "steps_per_print": 7}))


def test_errors_come_first() -> None:
    new = config(zero_optimization={"stage": 2, "nonsense": 1}, gradient_clipping=0.0)
    severities = [risk.severity for risk in diff_of(config(), new).risks]
    assert severities == sorted(severities)
    assert "error" in severities


def of_directories(
    tmp_path: Path, old: Plan, new: Plan, before: Experiment | None = None, after: Experiment | None = None
) -> Diff:
    return diff_sides(rendered(tmp_path / "old", old, before), rendered(tmp_path / "new", new, after))


@pytest.mark.parametrize(
    ("peaks", "risk", "says"),
    [
        ([25.5, 16.0], "does-not-fit", "stage 0 needs 25.50 GiB, its GPUs have 24.00 GiB: 1.50 GiB too much"),
        ([23.5, 16.0], "little-headroom", "0.50 GiB are left on the fullest GPU, where 4.00 GiB were"),
        ([22.0, 16.0], None, ""),
    ],
)
def test_memory_that_runs_out(tmp_path: Path, peaks: list[float], risk: str | None, says: str) -> None:
    plan = plan_of(accumulation=4)
    result = of_directories(tmp_path, predicted(plan, [20.0, 16.0], 4.0), predicted(plan, peaks, 4.0))
    found = [one for one in result.risks if one.id in ("does-not-fit", "little-headroom")]
    assert [one.id for one in found] == ([] if risk is None else [risk])
    assert not found or says in found[0].message


def test_hosts_that_are_too_small_for_what_is_offloaded(tmp_path: Path) -> None:
    plan = plan_of(accumulation=4, pool=pool_of(1, 4))
    host_gib = plan.inputs.pool.host_memory_gib
    stages = tuple(stage.model_copy(update={"host_bytes": int(host_gib * GIB) // 3}) for stage in plan.stages)
    result = of_directories(tmp_path, plan, plan.model_copy(update={"stages": stages}))
    risk = next(one for one in result.risks if one.id == "host-memory-short")
    assert risk.severity == "error"


def test_what_only_an_experiment_says(tmp_path: Path) -> None:
    plan = plan_of(accumulation=4)
    before = small_experiment(saving=Saving(every_steps=100))
    after = small_experiment(saving=Saving(every_steps=1000), seed=3)
    assert ids(of_directories(tmp_path, plan, plan, before, after)) == {"rarely-saved", "seed-changed"}
