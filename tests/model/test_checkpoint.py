from __future__ import annotations

import re
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from tests.model.layout_worker import GLOBAL_BATCH, MODEL
from tests.model.ranks import run_ranks
from vdsgen.cost.checkpoint_bytes import saved_bytes
from vdsgen.cost.settings import Settings
from vdsgen.cost.stage_sizes import StageSizes
from vdsgen.spec.dtypes import Dtype

pytestmark = pytest.mark.slow


def case(name: str, *, stages: int, zero_stage: int, tensor: int = 1, **sections: Any) -> dict[str, Any]:
    data = 2 // stages // tensor
    layers = MODEL.depth + 2
    config = {
        "train_batch_size": GLOBAL_BATCH,
        "train_micro_batch_size_per_gpu": 2,
        "gradient_accumulation_steps": GLOBAL_BATCH // (2 * data),
        "pipeline": {
            "stages": stages,
            "partition": [0, layers // 2, layers] if stages == 2 else [0, layers],
            "activation_checkpoint_interval": 2,
            "use_reentrant": False,
            "tensor_parallel_size": tensor,
        },
        "zero_optimization": {"stage": zero_stage},
        "optimizer": {"type": "AdamW", "params": {"lr": 1e-3, "torch_adam": True, "fused": True}},
        "scheduler": {
            "type": "WarmupLR",
            "params": {"warmup_min_lr": 0, "warmup_max_lr": 1e-3, "warmup_num_steps": 4},
        },
        "gradient_clipping": 1.0,
        **sections,
    }
    if config["scheduler"] is None:
        del config["scheduler"]
    return {"name": name, "config": config, "allow_fp16": "fp16" in sections}


BF16: dict[str, Any] = {"bf16": {"enabled": True}, "data_types": {"grad_accum_dtype": "fp32"}}
FP16: dict[str, Any] = {
    "fp16": {"enabled": True, "initial_scale_power": 9, "loss_scale_window": 2, "hysteresis": 1}
}
INT8: dict[str, Any] = {
    "vdsgen": {
        "optimizer_state_dtype": "int8",
        "schedule": {"type": "inverse_sqrt", "warmup_steps": 2, "decay_from_step": 3},
    },
    "scheduler": None,
    "zero_allow_untested_optimizer": True,
}
ONE_CYCLE: dict[str, Any] = {
    "scheduler": {
        "type": "OneCycle",
        "params": {
            "cycle_min_lr": 0,
            "cycle_max_lr": 1e-3,
            "cycle_first_step_size": 3,
            "cycle_momentum": False,
        },
    }
}
CASES = [
    case("pipeline-zero1-bf16", stages=2, zero_stage=1, **BF16),
    case("pipeline-zero1-fp16", stages=2, zero_stage=1, **FP16),
    case("pipeline-zero0-fp16", stages=2, zero_stage=0, **FP16),
    case("pipeline-zero0-bf16", stages=2, zero_stage=0, bf16={"enabled": True}),
    case("data-zero0-fp32", stages=1, zero_stage=0),
    case("data-zero2-bf16", stages=1, zero_stage=2, **ONE_CYCLE, **BF16),
    case("data-zero3-bf16", stages=1, zero_stage=3, bf16={"enabled": True}),
    case("pipeline-zero1-bf16-int8", stages=2, zero_stage=1, **INT8, **BF16),
    case("data-zero2-fp32-int8", stages=1, zero_stage=2, **INT8),
    case("data-zero3-bf16-int8", stages=1, zero_stage=3, **INT8, bf16={"enabled": True}),
    case("tensor-zero0-fp32", stages=1, zero_stage=0, tensor=2),
    case("tensor-zero1-bf16", stages=1, zero_stage=1, tensor=2, **BF16),
]


@pytest.fixture(scope="module")
def answers(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[dict[str, Any]]]:
    """Case -> what each rank says."""
    folder: Path = tmp_path_factory.mktemp("runs")
    found: dict[str, list[dict[str, Any]]] = {}
    # DeepSpeed does not build a plain engine in a process that has built a pipelined one.
    for pipelined in (True, False):
        cases = [item for item in CASES if (item["config"]["pipeline"]["stages"] > 1) == pipelined]
        ranks = run_ranks("tests.model.checkpoint_worker", 2, {"cases": cases, "folder": str(folder)})
        found |= {item["name"]: [rank[index] for rank in ranks] for index, item in enumerate(cases)}
    return found


@pytest.mark.parametrize("name", [item["name"] for item in CASES])
def test_a_resumed_run_is_the_uninterrupted_one(answers: dict[str, list[dict[str, Any]]], name: str) -> None:
    for rank in answers[name]:
        assert rank["step"] == 2, "the newest checkpoint is damaged"
        assert rank["resumed"] == rank["straight"]
        assert rank["straight"] == answers[name][0]["straight"]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("pipeline-zero1-bf16-int8", [1e-3, 1e-3 * (3 / 4) ** 0.5]),
        ("data-zero3-bf16-int8", [1e-3, 1e-3 * (3 / 4) ** 0.5]),
        ("data-zero2-bf16", [1e-3 * 2 / 3, 1e-3]),
    ],
)
def test_a_resumed_run_has_the_rates_of_its_schedule(
    answers: dict[str, list[dict[str, Any]]], name: str, expected: list[float]
) -> None:
    for rank in answers[name]:
        assert [step[3] for step in rank["resumed"]] == pytest.approx(expected)


def test_settings_of_the_optimizer_are_those_of_the_engine_that_goes_on(
    answers: dict[str, list[dict[str, Any]]],
) -> None:
    """DeepSpeed's loading brings those of the checkpoint."""
    for name, ranks in answers.items():
        for rank in ranks:
            found, first = rank["other settings"], rank["resumed"][0]
            assert {key: found[key] for key in ("betas", "eps", "weight_decay")} == {
                "betas": [0.8, 0.95], "eps": 1e-6, "weight_decay": 0.3,
            }, name  # fmt: skip
            assert found["rate"] == first[3], name
            assert found["clip_grad"] == (None if name in ("data-zero0-fp32", "tensor-zero0-fp32") else 0.25)
            assert found["window"] == (7 if "fp16" in name else None), name


def test_the_last_two_are_kept_and_latest_is_the_newest(answers: dict[str, list[dict[str, Any]]]) -> None:
    for ranks in answers.values():
        assert ranks[0]["kept"] == [2, 4]
        assert ranks[0]["latest"] == "step-00000004"


def test_what_is_written_beside_training_is_what_waiting_for_it_would_have_written(
    answers: dict[str, list[dict[str, Any]]],
) -> None:
    for ranks in answers.values():
        assert ranks[0]["asynchronous"] == {
            "complete at once": [],
            "sound": True,
            "same files": True,
            "different": [],
            "notes": [2],
        }


def settings_of(config: dict[str, Any]) -> Settings:
    stages, tensor = config["pipeline"]["stages"], config["pipeline"]["tensor_parallel_size"]
    dtype: Dtype = "bf16" if "bf16" in config else "fp16" if "fp16" in config else "fp32"
    sums = config.get("data_types", {}).get("grad_accum_dtype", dtype)
    return Settings(
        stages, 2 // stages // tensor, config["zero_optimization"]["stage"], 2, 2, 2, dtype, sums, 1, 1,
        tensor_parallel_size=tensor, int8_moments="optimizer_state_dtype" in config.get("vdsgen", {}),
    )  # fmt: skip


@pytest.mark.parametrize("item", CASES, ids=lambda item: item["name"])
def test_bytes_of_a_checkpoint_are_the_planned_ones(
    answers: dict[str, list[dict[str, Any]]], item: dict[str, Any]
) -> None:
    settings, ranks = settings_of(item["config"]), answers[item["name"]]
    planned = 0
    data = settings.data_parallel_size
    for rank in ranks[::data]:  # the first of each pipeline stage or tensor-parallel part
        numels = rank["parameters"]
        total, counts = sum(numels), tuple(sorted(Counter(numels).items()))
        planned += saved_bytes(StageSizes(total, total, max(numels), counts), settings).of_group(data)
    # Beside them every parameter's step is counted, and flat buffers are padded.
    assert ranks[0]["tensor_bytes"] == pytest.approx(planned, rel=2e-3)


def test_files_that_name_a_function_are_refused_and_it_is_not_called(
    answers: dict[str, list[dict[str, Any]]],
) -> None:
    for ranks in answers.values():
        for rank in ranks:
            first, *_ = rank["obeying"].splitlines()
            assert "/checkpoints/step-00000002/" in first
            assert re.search(
                r"\.pt names (\w*io|builtins)\.open, which no checkpoint .* would run code$", first
            )
            assert not rank["obeying"].endswith(" made")
