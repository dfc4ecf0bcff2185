"""Tensor parallelism, alone and with pipeline and data parallelism, trains as one process does.

Every case runs on DeepSpeed's real engine over gloo. Ranks' partial sums are added in another order than one
matrix product adds them, so results agree to rounding: in fp32 after three steps 1e-5 of a loss and of a
weight's norm, 1e-4 of a gradient's norm. tests/model/test_tensor_layers.py has every gradient of a block.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.model.agreement import (
    Answers,
    all_ranks_tell_the_same,
    follows_in_half,
    trains_to_rounding,
)
from tests.model.ranks import run_ranks
from tests.model.test_layouts import FP16, FP32_ACCUMULATION, STEPS, config, selectively
from tests.model.training import render_tiny, train, write_clips
from vdsgen.model.export.export import export
from vdsgen.model.folder import load_model
from vdsgen.model.metrics import read_metrics
from vdsgen.spec.architecture import Vdt
from vdsgen.spec.checkpoints import read_checkpoints
from vdsgen.spec.geometry import geometry_of
from vdsgen.spec.load import load_experiment
from vdsgen.spec.training import Saving

pytestmark = [pytest.mark.slow, pytest.mark.timeout(500)]

BF16: dict[str, Any] = {"bf16": {"enabled": True}}


def split(stages: int, data: int, tensor: int = 2, **settings: Any) -> dict[str, Any]:
    """A config whose blocks are shared between `tensor` ranks."""
    made = config(stages, data, **settings)
    made["pipeline"] |= {
        "tensor_parallel_size": tensor,
        "pipe_partitioned": False,
        "grad_partitioned": False,
    }
    return made


UNCORRECTED = "tensor 2 bf16 uncorrected"
CASES: dict[int, dict[str, dict[str, Any]]] = {
    1: {"one": config(1, 1), "one bf16": config(1, 1, **BF16)},
    2: {
        "tensor 2": split(1, 1),
        "tensor 2 checkpointed": split(1, 1, interval=3),
        "tensor 2 selectively checkpointed": selectively(split(1, 1, interval=1), 6),
        "tensor 2 bf16": split(1, 1, interval=2, **BF16),
        "tensor 2 fp16": split(1, 1, fp16=FP16),
        UNCORRECTED: split(1, 1, **BF16),
    },
    4: {
        "pipeline 2 x tensor 2": split(2, 1),
        "data 2 x tensor 2 ZeRO-1": split(1, 2, zero=1),
        "data 2 x tensor 2 ZeRO-2 checkpointed": split(1, 2, zero=2, interval=3),
        "data 2 x tensor 2 ZeRO-3": split(1, 2, zero=3, interval=2),
        "pipeline 2 x tensor 2 ZeRO-1 bf16": split(2, 1, zero=1, interval=1, **BF16, **FP32_ACCUMULATION),
        "pipeline 2 x tensor 2 fp16": split(2, 1, fp16=FP16),
    },
    8: {
        "pipeline 2 x data 2 x tensor 2": split(2, 2, interval=2),
        "pipeline 2 x data 2 x tensor 2 bf16": split(2, 2, **BF16),
    },
}
NAMES = [
    name for cases in CASES.values() for name in cases if not name.startswith("one") and name != UNCORRECTED
]
HALF = [name for name in NAMES if "16" in name]
FP32 = [name for name in NAMES if name not in HALF]


@pytest.fixture(scope="module")
def results() -> dict[str, Answers]:
    """What each rank said of each case."""
    found: dict[str, Answers] = {}
    for world_size, cases in CASES.items():
        jobs = [
            {"config": case, "steps": STEPS, "uncorrected": name == UNCORRECTED}
            for name, case in cases.items()
        ]
        by_rank = run_ranks("tests.model.layout_worker", world_size, {"cases": jobs})
        for index, name in enumerate(cases):
            found[name] = [answers[index] for answers in by_rank]
    return found


@pytest.mark.parametrize("name", FP32)
def test_loss_gradient_norm_and_weights_are_those_of_one_process(
    results: dict[str, Answers], name: str
) -> None:
    trains_to_rounding(results[name], results["one"])


@pytest.mark.parametrize("name", HALF)
def test_half_precision_follows_one_process(results: dict[str, Answers], name: str) -> None:
    follows_in_half(results[name], results["one"], bf16="bf16" in name)


@pytest.mark.parametrize("name", NAMES)
def test_all_ranks_tell_the_same_and_predict_the_same(results: dict[str, Answers], name: str) -> None:
    all_ranks_tell_the_same(results[name], results["one"], half=name in HALF)


def test_without_correction_only_the_first_ranks_parts_are_in_the_norm(
    results: dict[str, Answers],
) -> None:
    """Fails once DeepSpeed asks parameters, not gradients: then model.corrections.mark_split_gradients may
    go."""
    whole, part = (results[name][0]["steps"][0]["grad_norm"] for name in ("one bf16", UNCORRECTED))
    assert part < 0.95 * whole


def test_a_rendered_plan_with_tensor_ranks_trains_saves_and_samples(tmp_path: Path) -> None:
    """2 pipeline x 2 tensor ranks."""
    write_clips(tmp_path / "clips")
    training = {"steps": 2, "saving": Saving(every_steps=2, keep=1)}
    plan = render_tiny(
        tmp_path / "plan", tmp_path / "clips", data=1, tensor=2, accumulation=4, training=training
    )
    ended = train(plan, tmp_path / "run")
    assert ended.code == 0, ended.shown
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert "2 pipeline x 1 data x 2 tensor, ZeRO-1, fp32" in summary["plan"]["layout"]
    assert not summary["plan"]["edited"]
    assert [len(step["peak_memory_bytes"]) for step in read_metrics(tmp_path / "run")] == [4, 4]
    complete, incomplete = read_checkpoints(tmp_path / "run")
    assert not incomplete
    (record,) = complete.values()
    assert record.layout.tensor_parallel_size == 2
    assert {name for name in record.files if name.startswith("layer_01")} == {
        f"layer_01-model_{rank:02d}-model_states.pt" for rank in range(2)
    }
    assert (tmp_path / "run" / "samples" / "step-00000002.mp4").exists()
    done = export(tmp_path / "run", tmp_path / "exported")
    experiment = load_experiment(plan / "train.yaml")
    assert isinstance(experiment.model, Vdt)
    model = load_model(tmp_path / "exported", geometry_of(experiment.data, experiment.model))
    assert done.parameters == sum(parameter.numel() for parameter in model.parameters())
