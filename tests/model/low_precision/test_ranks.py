"""Linear layers in 8 bits on DeepSpeed's real engine: the same training in every layout of ranks."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tests.model.agreement import Answers
from tests.model.ranks import run_ranks
from tests.model.test_layouts import STEPS, config, furthest, selectively

pytestmark = [pytest.mark.slow, pytest.mark.timeout(500)]

Config = dict[str, Any]


def in_8_bits(case: Config, kind: str = "fp8") -> Config:
    return {**case, "vdsgen": {"linear_precision": kind}}


def sharing(case: Config) -> Config:
    """Blocks are split between the two ranks."""
    return {
        **case,
        "pipeline": {
            **case["pipeline"],
            "tensor_parallel_size": 2,
            "pipe_partitioned": False,
            "grad_partitioned": False,
        },
    }


BF16: Config = {"bf16": {"enabled": True}, "data_types": {"grad_accum_dtype": "fp32"}}
CASES: dict[str, Config] = {
    "exact": config(1, 2),
    "data": in_8_bits(config(1, 2)),
    "data, int8": in_8_bits(config(1, 2), "int8"),
    "ZeRO-3": in_8_bits(config(1, 2, zero=3)),
    "ZeRO-3, checkpointed": in_8_bits(config(1, 2, zero=3, interval=3)),
    "ZeRO-3, selective, int8": in_8_bits(selectively(config(1, 2, zero=3, interval=1), 6), "int8"),
    "ZeRO-3, bf16": in_8_bits(config(1, 2, zero=3, **BF16)),
    # Last: the engine remembers that there were stages, or ranks that share blocks.
    "pipeline": in_8_bits(config(2, 1)),
    "pipeline, int8": in_8_bits(config(2, 1, interval=2), "int8"),
    "pipeline, selective": in_8_bits(selectively(config(2, 1, interval=1), 3, 3)),
    "tensor": in_8_bits(sharing(config(1, 1))),
}
"""On two ranks."""
SAME = {
    "pipeline": "data",
    "pipeline, int8": "data, int8",
    "pipeline, selective": "data",
    "ZeRO-3": "data",
    "ZeRO-3, checkpointed": "data",
    "ZeRO-3, selective, int8": "data, int8",
}
"""The same products of the same matrices. Sums of gradients round in another order, which then turns some
weights' 8 bits."""


@pytest.fixture(scope="module")
def results() -> dict[str, Answers]:
    cases = [{"config": case, "steps": STEPS} for case in CASES.values()]
    said = run_ranks("tests.model.layout_worker", 2, {"cases": cases})
    return {name: [rank[index] for rank in said] for index, name in enumerate(CASES)}


@pytest.mark.parametrize("name", SAME)
def test_layouts_train_the_same(results: dict[str, Answers], name: str) -> None:
    found, reference = results[name], results[SAME[name]]
    pairs = zip(found[0]["steps"], reference[0]["steps"], strict=True)
    for number, (step, expected) in enumerate(pairs):
        assert step["loss"] == pytest.approx(expected["loss"], rel=1e-2 if number else 1e-5)
        assert step["grad_norm"] == pytest.approx(expected["grad_norm"], rel=2e-2 if number else 1e-4)
    assert furthest(found, reference) < 3e-2
    assert np.array(found[0]["held_out"]) == pytest.approx(np.array(reference[0]["held_out"]), rel=1e-2)


@pytest.mark.parametrize("name", ["data", "data, int8", "tensor", "ZeRO-3, bf16"])
def test_trains_nearly_as_the_exact_model(results: dict[str, Answers], name: str) -> None:
    found, exact = results[name], results["exact"]
    for step, expected in zip(found[0]["steps"], exact[0]["steps"], strict=True):
        assert step["loss"] != expected["loss"], "8 bits are there"
        assert step["loss"] == pytest.approx(expected["loss"], rel=0.06)
        assert step["grad_norm"] == pytest.approx(expected["grad_norm"], rel=0.15)
