"""int8 gradients on real ranks: what they lose, what they send, that ranks stay equal, that runs resume."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch

from tests.benchmarks.communication_table import INT8, Case
from tests.model.ranks import run_ranks
from tests.model.test_checkpoint import BF16, case
from vdsgen.errors import VdsgenError
from vdsgen.model.compression import dequantise, quantise
from vdsgen.spec.compression import BLOCK_ELEMENTS, compression_of, refusal

ELEMENTS = [4096, 70001]
"""Whole blocks for two ranks, and not."""
STEPS = 12


def test_codes_lose_at_most_half_a_step() -> None:
    values = torch.randn(64 * BLOCK_ELEMENTS) * torch.rand(64 * BLOCK_ELEMENTS).pow(6)
    values[:BLOCK_ELEMENTS] = 0
    left = values.clone()
    codes, scales = quantise(left)
    again = dequantise(codes, scales, torch.empty_like(values))
    lost = (values - again).view(-1, BLOCK_ELEMENTS).abs().amax(1)
    assert bool((lost <= scales / 2 * (1 + 1e-5)).all())
    torch.testing.assert_close(left, values - again, atol=1e-6, rtol=0)
    assert codes[:BLOCK_ELEMENTS].abs().sum() == 0


@pytest.mark.parametrize("value", [float("inf"), float("-inf"), float("nan")])
def test_what_is_not_finite_stays_so(value: float) -> None:
    values = torch.ones(2 * BLOCK_ELEMENTS)
    values[5] = value
    codes, scales = quantise(values)
    again = dequantise(codes, scales, torch.empty_like(values))
    assert not again[:BLOCK_ELEMENTS].isfinite().any()
    assert again[BLOCK_ELEMENTS:].isfinite().all()


def test_the_section_is_read_or_refused() -> None:
    assert compression_of({}) == "none"
    assert compression_of(INT8) == "int8"
    for section in (
        {"vdsgen": "int8"}, {"vdsgen": {"compression": "int8"}}, {"vdsgen": {"gradient_compression": "int4"}},
    ):  # fmt: skip
        with pytest.raises(VdsgenError):
            compression_of(section)
    assert refusal("int8", 1) is None
    assert refusal("none", 3) is None
    for stage in (2, 3):
        assert f"ZeRO-{stage}" in str(refusal("int8", stage))
    assert refusal("int8", 1, optimizer_is_offloaded=True) is not None


@pytest.fixture(scope="module")
def ranks(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """What each of two ranks saw."""
    sections: dict[str, Any] = {**BF16, **INT8}
    checkpoint = case("int8", stages=1, zero_stage=1, **sections)
    job = {
        "elements": ELEMENTS, "steps": STEPS, "checkpoint": checkpoint,
        "folder": str(tmp_path_factory.mktemp("runs")),
    }  # fmt: skip
    return run_ranks("tests.model.compression_worker", 2, job)


@pytest.mark.slow
def test_the_mean_is_within_its_bound_and_the_same_on_all_ranks(ranks: list[dict[str, Any]]) -> None:
    for mine, theirs in zip(ranks[0]["exchanged"], ranks[1]["exchanged"], strict=True):
        assert mine["over_bound"] <= 0
        assert mine["lost"] > 0
        assert mine["mean"] == theirs["mean"]


@pytest.mark.slow
def test_errors_do_not_add_up(ranks: list[dict[str, Any]]) -> None:
    """Without feedback, what steps lose wanders off: about sqrt(steps) of one step's loss, at the worst steps
    times it. With it, the sum of all steps is as far off as one step's errors and their rounding."""
    for found in ranks[0]["exchanged"]:
        assert found["drift"] <= 1.5 * found["lost"]


@pytest.mark.slow
def test_one_byte_an_element_travels(ranks: list[dict[str, Any]]) -> None:
    """Twice, less one rank's share: a quarter of what an fp32 ring sends, and 1.6 % for the scales."""
    for elements, found in zip(ELEMENTS, ranks[0]["exchanged"], strict=True):
        codes = sum(volume for *_, dtype, _, volume in found["sent"] if dtype == "int8")
        everything = sum(entry[-1] for entry in found["sent"])
        ring = 2 * 4 * elements // 2
        assert codes / ring == pytest.approx(1 / 4, rel=0.02)
        assert everything / ring == pytest.approx(1 / 4, rel=0.04)


@pytest.mark.slow
def test_an_overflow_reaches_every_rank_and_leaves_no_error(ranks: list[dict[str, Any]]) -> None:
    for rank in ranks:
        for found in rank["overflowed"].values():
            assert found == {"finite": False, "errors": 0.0}


@pytest.mark.slow
def test_a_resumed_run_is_the_uninterrupted_one(ranks: list[dict[str, Any]]) -> None:
    """Errors are part of the checkpoint: with others, losses would differ."""
    for rank in ranks:
        assert rank["checkpoint"]["step"] == 2
        assert rank["checkpoint"]["resumed"] == rank["checkpoint"]["straight"]


@pytest.fixture(scope="module")
def pipelines() -> list[list[dict[str, Any]]]:
    """2 pipeline x 2 data, with and without: case -> what each of four ranks saw."""
    jobs = []
    for zero_stage, precision in ((0, "bf16"), (1, "fp32"), (1, "fp16")):
        for sections in ({}, INT8):
            job = Case(2, zero_stage, precision, "", copy.deepcopy(sections)).job()
            jobs.append({**job, "steps": STEPS})
    answers = run_ranks("tests.model.communication_worker", 4, {"cases": jobs}, timeout_seconds=500)
    return [[rank[index] for rank in answers] for index in range(len(jobs))]


@pytest.mark.slow
def test_pipelines_train_as_with_exact_gradients(pipelines: list[list[dict[str, Any]]]) -> None:
    for exact, compressed in zip(pipelines[::2], pipelines[1::2], strict=True):
        losses = [step[0] for step in compressed[0]["steps"]]
        assert losses == pytest.approx([step[0] for step in exact[0]["steps"]], rel=0.01)
        assert losses != [step[0] for step in exact[0]["steps"]]
        for rank in (0, 2):  # each stage's two data ranks hold the same weights, to the bit
            assert compressed[rank]["weights"] == compressed[rank + 1]["weights"]
        assert compressed[0]["errors_bytes"] > 0


@pytest.mark.slow
def test_a_pipelines_reduction_sends_what_it_should(pipelines: list[list[dict[str, Any]]]) -> None:
    widths = {0: 2, 1: 4, 2: 2}
    for index, width in widths.items():
        exact, compressed = pipelines[2 * index], pipelines[2 * index + 1]
        before = sum(entry[-1] for entry in exact[0]["sent"] if entry[0] == "all_reduce")
        after = sum(
            entry[-1]
            for entry in compressed[0]["sent"]
            if entry[0] == "all_to_all_single" or entry[1] == "int8"
        )
        assert after / before == pytest.approx(1 / width, rel=0.1)
