"""Sequence parallelism, alone and with pipeline, data and tensor parallelism, trains as one process does.

Every case runs on DeepSpeed's real engine over gloo. In fp32 results agree to rounding, as those of tensor
parallelism do (tests/model/test_tensor_parallel.py): gradients of a sample's parts are added in another
order.
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
from vdsgen.model.metrics import read_metrics
from vdsgen.model.saves import read_saves
from vdsgen.spec.checkpoints import read_checkpoints
from vdsgen.spec.training import Saving

pytestmark = [pytest.mark.slow, pytest.mark.timeout(500)]

FRAMES = 4
BF16: dict[str, Any] = {"bf16": {"enabled": True}}


def shared(stages: int, data: int, sequence: int = 2, tensor: int = 1, **settings: Any) -> dict[str, Any]:
    """A config whose samples are shared between `sequence` ranks."""
    made = config(stages, data, **settings)
    made["pipeline"] |= {"sequence_parallel_size": sequence}
    if tensor > 1:
        made["pipeline"] |= {
            "tensor_parallel_size": tensor,
            "pipe_partitioned": False,
            "grad_partitioned": False,
        }
    return made


CASES: dict[int, dict[str, dict[str, Any]]] = {
    1: {"one": config(1, 1)},
    2: {
        "sequence 2": shared(1, 1),
        "sequence 2 checkpointed": shared(1, 1, interval=3),
        "sequence 2 selectively checkpointed": selectively(shared(1, 1, interval=1), 6),
        "sequence 2 ZeRO-1": shared(1, 1, zero=1),
        "sequence 2 ZeRO-3 checkpointed": shared(1, 1, zero=3, interval=2),
        "sequence 2 bf16": shared(1, 1, interval=2, **BF16),
        "sequence 2 fp16": shared(1, 1, fp16=FP16),
    },
    4: {
        "sequence 4 ZeRO-2": shared(1, 1, 4, zero=2),
        "data 2 x sequence 2 ZeRO-2 checkpointed": shared(1, 2, zero=2, interval=3),
        "data 2 x sequence 2 ZeRO-3": shared(1, 2, zero=3),
        "pipeline 2 x sequence 2": shared(2, 1),
        "pipeline 2 x sequence 2 ZeRO-1 bf16": shared(2, 1, zero=1, interval=1, **BF16, **FP32_ACCUMULATION),
        "sequence 2 x tensor 2 ZeRO-1": shared(1, 1, tensor=2, zero=1),
    },
    8: {
        "pipeline 2 x data 2 x sequence 2": shared(2, 2, interval=2),
        "pipeline 2 x sequence 2 x tensor 2 bf16": shared(2, 1, tensor=2, **BF16),
    },
}
NAMES = [name for cases in CASES.values() for name in cases if name != "one"]
HALF = [name for name in NAMES if "16" in name]
FP32 = [name for name in NAMES if name not in HALF]


@pytest.fixture(scope="module")
def results() -> dict[str, Answers]:
    """What each rank said of each case."""
    found: dict[str, Answers] = {}
    for world_size, cases in CASES.items():
        jobs = [{"config": case, "steps": STEPS} for case in cases.values()]
        job = {"cases": jobs, "frames": FRAMES}
        by_rank = run_ranks("tests.model.layout_worker", world_size, job)
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


def test_a_rendered_plan_with_sequence_ranks_trains_saves_resumes_and_samples(tmp_path: Path) -> None:
    """2 pipeline x 2 sequence ranks; the losses are those of one rank a sample."""
    write_clips(tmp_path / "clips")
    training = {"steps": 4, "saving": Saving(every_steps=2, keep=2, asynchronous=True)}
    shared, whole = (
        render_tiny(
            tmp_path / f"plan-{sequence}",
            tmp_path / "clips",
            data=1,
            sequence=sequence,
            accumulation=4,
            training=training,
        )
        for sequence in (2, 1)
    )
    ended = train(shared, tmp_path / "run", steps=2)
    assert ended.code == 0, ended.shown
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert "2 pipeline x 1 data x 2 sequence, ZeRO-1, fp32" in summary["plan"]["layout"]
    assert not summary["plan"]["edited"]
    (save,) = read_saves(tmp_path / "run")
    assert (summary["saving"]["saves"], summary["saving"]["checkpoint_bytes"]) == (1, save["bytes"])
    assert "Saving: 1 checkpoint of " in ended.shown and "written beside training" in ended.shown
    assert (tmp_path / "run" / "samples" / "step-00000002.mp4").exists()
    complete, incomplete = read_checkpoints(tmp_path / "run")
    assert not incomplete
    (record,) = complete.values()
    assert record.layout.sequence_parallel_size == 2
    resumed = train(shared, tmp_path / "run", resume=True)
    assert resumed.code == 0, resumed.shown
    assert [one["step"] for one in read_saves(tmp_path / "run")] == [2, 4]
    assert train(whole, tmp_path / "whole").code == 0
    for step, expected in zip(read_metrics(tmp_path / "run"), read_metrics(tmp_path / "whole"), strict=True):
        assert len(step["peak_memory_bytes"]) == 4 and len(expected["peak_memory_bytes"]) == 2
        assert step["loss"] == pytest.approx(expected["loss"], rel=1e-5)


def test_clips_that_the_ranks_cannot_share_are_refused_before_training(tmp_path: Path) -> None:
    write_clips(tmp_path / "clips")
    plan = render_tiny(tmp_path / "plan", tmp_path / "clips", pipeline=1, data=1, sequence=3, accumulation=4)
    ended = train(plan, tmp_path / "run")
    assert ended.code == 2, ended.shown
    assert "sequence parallel size 3 does not divide the clips'" in ended.shown
    assert "Traceback" not in ended.shown
