"""A checkpoint goes on in other layouts of ranks: with its states to the last bit, its losses to rounding.

Losses differ from the uninterrupted run's because sums are taken in another order: fp32 to a few of its units
in the last place (1.2e-7), the others to about two of theirs (fp16 9.8e-4, bf16 7.8e-3; under ZeRO-3 the
engine's linear layers round before they add the bias).
"""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path
from typing import Any

import pytest
import torch
from deepspeed.checkpoint import ds_to_universal

from tests.model.universal.layouts import EMA, INT8, Case, config, run_cases

pytestmark = pytest.mark.slow

SAVED, STEPS = 3, 5
SUMS = "bf16, fp32 sums"
LOSSES = {"fp32": 2e-6, "fp16": 2e-3, "bf16": 2e-2, SUMS: 2e-2}
SOURCES: dict[str, tuple[int, int, int, str, dict[str, Any]]] = {
    "2x2 fp32": (2, 2, 1, "fp32", EMA),
    "1x2 fp16": (1, 2, 0, "fp16", {}),
    "1x2 ZeRO-3": (1, 2, 3, SUMS, {}),
    "2x1 bf16": (2, 1, 0, "bf16", {}),
}
"""Name -> stages, data ranks, ZeRO stage, precision, and what else."""
TARGETS = [
    ("2x2 fp32", 4, 1, 1, EMA),
    ("2x2 fp32", 1, 2, 0, EMA),
    ("2x2 fp32", 1, 2, 2, EMA),
    ("2x2 fp32", 1, 2, 3, EMA),
    ("2x2 fp32", 2, 1, 0, EMA),
    ("2x2 fp32", 1, 1, 1, EMA),
    ("1x2 fp16", 2, 1, 1, {}),
    ("1x2 ZeRO-3", 2, 1, 1, {}),
    ("2x1 bf16", 1, 1, 0, {}),
]


def source(name: str) -> Case:
    stages, data, zero_stage, precision, section = SOURCES[name]
    made = config(stages, data, zero_stage, precision, **section)
    return {"name": name, "config": made, "save_at": SAVED, "steps": STEPS}


def target(name: str, stages: int, data: int, zero_stage: int, section: dict[str, Any]) -> Case:
    made = config(stages, data, zero_stage, SOURCES[name][3], **section)
    return {"name": f"{name} > {stages}x{data} {zero_stage}", "source": name, "config": made, "steps": STEPS}


def extra(name: str, of: str, made: dict[str, Any], **more: Any) -> Case:
    return {"name": name, "source": of, "config": made, "steps": STEPS, **more}


def first(name: str, made: dict[str, Any], **more: Any) -> Case:
    return {"name": name, "config": made, "save_at": SAVED, "steps": STEPS, **more}


UNIVERSAL = {"checkpoint": {"load_universal": True}}
OFFLOADED = config(1, 2, 2, "fp32") | {
    "zero_optimization": {"stage": 2, "offload_optimizer": {"device": "cpu"}},
    "zero_force_ds_cpu_optimizer": False,
}
OTHERS = [
    # What DeepSpeed itself makes of the same files.
    extra("by DeepSpeed, ZeRO-1", "2x2 fp32", config(2, 1, 1, "fp32") | UNIVERSAL, by_deepspeed=True),
    extra("by DeepSpeed, ZeRO-3", "2x2 fp32", config(1, 2, 3, "fp32") | UNIVERSAL, by_deepspeed=True),
    # States in host memory.
    extra("2x2 fp32 > offloaded", "2x2 fp32", OFFLOADED),
    # Moments in 8 bits, in blocks of each rank's share.
    first("int8", config(1, 2, 1, "fp32", **INT8)),
    extra("int8 > fp32", "int8", config(2, 1, 1, "fp32")),
    # Frozen weights.
    first("adapters", config(1, 2, 2, "fp32"), adapters=True),
    extra("adapters > ZeRO-3", "adapters", config(1, 2, 3, "fp32"), adapters=True),
    extra("adapters > 2x1", "adapters", config(2, 1, 1, "fp32"), adapters=True),
    # Another precision.
    extra("fp16 > bf16", "1x2 fp16", config(2, 1, 1, SUMS)),
]

TENSOR = [
    # Two ranks that share each block: DeepSpeed builds no other plain engine after one of these.
    extra("2x2 fp32 > tensor", "2x2 fp32", config(1, 1, 0, "fp32", tensor=2)),
    first("tensor", config(1, 1, 0, "fp32", tensor=2)),
]
FROM_TENSOR = extra("tensor > 1x1", "tensor", config(1, 1, 1, "fp32"))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("runs")


@pytest.fixture(scope="module")
def answers(folder: Path) -> dict[str, list[Any]]:
    by_ranks = [source("2x2 fp32"), target(*TARGETS[0])]
    pairs = [source("1x2 fp16"), source("1x2 ZeRO-3"), *(target(*one) for one in TARGETS[1:-1])]
    alone = [target(*TARGETS[-1])]
    cases = [*by_ranks, *pairs, *OTHERS, source("2x1 bf16"), *TENSOR, *alone, FROM_TENSOR]
    return run_cases(cases, folder)


def loss_difference(answers: dict[str, list[Any]], name: str, of: str) -> float:
    """The largest, relative."""
    here, there = (answers[one][0]["figures"][-(STEPS - SAVED) :] for one in (name, of))
    assert len(here) == len(there) == STEPS - SAVED
    pairs = zip(here, there, strict=True)
    return float(max(abs(mine[0] - theirs[0]) / abs(theirs[0]) for mine, theirs in pairs))


@pytest.mark.parametrize("case", TARGETS, ids=[target(*one)["name"] for one in TARGETS])
def test_states_are_the_checkpoints_and_losses_go_on(answers: dict[str, list[Any]], case: Any) -> None:
    name, of = target(*case)["name"], case[0]
    for rank in answers[name]:
        assert rank["other"] == [] and rank["same_names"] and rank["same_scalars"]
        assert rank["adam_steps"] == SAVED
        assert set(rank["counts"]) == {"fp32", "exp_avg", "exp_avg_sq"} | ({"ema"} if case[4] else set())
    assert loss_difference(answers, name, of) < LOSSES[SOURCES[of][3]]
    rates = [[step[2:] for step in answers[one][0]["figures"][-(STEPS - SAVED) :]] for one in (name, of)]
    assert rates[0] == rates[1], "loss scales and learning rates"


@pytest.mark.parametrize("stage", [1, 3])
def test_deepspeed_loads_the_same_files(answers: dict[str, list[Any]], stage: int) -> None:
    name = f"by DeepSpeed, ZeRO-{stage}"
    for rank in answers[name]:
        assert rank["other"] == [] and rank["same_names"] and rank["adam_steps"] == SAVED
    assert loss_difference(answers, name, "2x2 fp32") < LOSSES["fp32"]


@pytest.mark.parametrize("name", ["2x2 fp32", "1x2 ZeRO-3"])
def test_deepspeeds_own_tool_writes_the_same(
    answers: dict[str, list[Any]], folder: Path, tmp_path: Path, name: str
) -> None:
    """Of what ZeRO shares out; ours has AdamW's step of ZeRO-3 too."""
    assert answers[name]
    (source,) = (folder / name / "checkpoints").glob("step-*")
    wanted = {"num_extract_workers": 1, "num_merge_workers": 1, "keep_temp_folder": False, "strict": True}
    theirs, ours = tmp_path / "universal", folder / name / "universal" / source.name
    ds_to_universal.main(
        Namespace(input_folder=str(source), output_folder=str(theirs), inject_missing_state=True, **wanted)
    )
    files = [path.relative_to(theirs) for path in theirs.glob("zero/*/*.pt")]
    assert len(files) >= 3 * answers[f"{name} > 2x1 {0 if name == '2x2 fp32' else 1}"][0]["counts"]["fp32"]
    for file in files:
        one, other = (torch.load(folder / file, weights_only=True) for folder in (theirs, ours))
        one, other = (x["param"] if isinstance(x, dict) else x for x in (one, other))
        assert torch.equal(torch.as_tensor(one).view(-1), torch.as_tensor(other).view(-1)), file


@pytest.mark.parametrize(
    ("name", "of"),
    [("tensor > 1x1", "tensor"), ("2x2 fp32 > tensor", "2x2 fp32"), ("2x2 fp32 > offloaded", "2x2 fp32")],
)
def test_blocks_that_ranks_share_and_states_on_the_host(
    answers: dict[str, list[Any]], name: str, of: str
) -> None:
    for rank in answers[name]:
        assert rank["other"] == [] and rank["same_names"]
    assert loss_difference(answers, name, of) < LOSSES["fp32"]


def test_8_bit_moments_become_what_they_stand_for(answers: dict[str, list[Any]]) -> None:
    for rank in answers["int8 > fp32"]:
        assert rank["other"] == []


@pytest.mark.parametrize("name", ["adapters > ZeRO-3", "adapters > 2x1"])
def test_frozen_weights_come_along(answers: dict[str, list[Any]], name: str) -> None:
    for rank in answers[name]:
        assert rank["other"] == [] and rank["same_names"]
        assert rank["frozen"] > 0 and rank["same_frozen"]
    assert loss_difference(answers, name, "adapters") < LOSSES["fp32"]


def test_another_precision_has_the_same_fp32_states(answers: dict[str, list[Any]]) -> None:
    for rank in answers["fp16 > bf16"]:
        assert rank["other"] == []
    assert loss_difference(answers, "fp16 > bf16", "1x2 fp16") < LOSSES["bf16"]
