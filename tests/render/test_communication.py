"""How gradients and parameters travel, as ds_config.json says it: what DeepSpeed reads, and what it drops."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.render.plans import plan_of, small_experiment
from vdsgen.render.engine_config import engine_config
from vdsgen.render.engine_keys import unread_keys
from vdsgen.render.render import render_plan
from vdsgen.spec.compression import compression_of
from vdsgen.spec.plan import Communication, Plan, Zero


def communicating_plans() -> list[Plan]:
    """One with everything at ZeRO-3, one compressed, one reduced."""
    zero = Zero(
        stage=3,
        reduce_bucket_elements=5_000_000,
        allgather_bucket_elements=4_000_000,
        quantized_weights=True,
        quantized_gradients=True,
        hierarchical_partition_size=2,
    )
    return [
        plan_of(pipeline=1, data=4, zero_stage=3, zero=zero),
        plan_of(dtype="bf16", communication=Communication(gradient_compression="int8")),
        plan_of(dtype="fp32", communication=Communication(dtype="bf16")),
    ]


def config_of(plan: Plan) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(render_plan(plan, small_experiment())["ds_config.json"])
    return found


def test_each_is_rendered_where_its_reader_looks() -> None:
    whole, compressed, reduced = (config_of(plan) for plan in communicating_plans())
    zero = whole["zero_optimization"]
    assert (zero["zero_quantized_weights"], zero["zero_quantized_gradients"]) == (True, True)
    assert zero["zero_hpz_partition_size"] == 2
    assert compressed["vdsgen"] == {"gradient_compression": "int8"}
    assert compression_of(compressed) == "int8"
    assert reduced["communication_data_type"] == "bf16"
    assert [unread_keys(config) for config in (whole, compressed, reduced)] == [[], [], []]


def test_what_the_engine_does_by_itself_is_not_written() -> None:
    config = engine_config(plan_of(), small_experiment())
    assert not {"vdsgen", "communication_data_type"} & set(config)
    assert not [key for key in config["zero_optimization"] if key.startswith("zero_")]


@pytest.mark.parametrize("index", range(3))
def test_deepspeed_takes_them(index: int) -> None:
    from deepspeed.runtime.config import DeepSpeedConfig

    config = DeepSpeedConfig({**config_of(communicating_plans()[index]), "train_batch_size": 2})
    zero = config.zero_config
    assert (zero.zero_hpz_partition_size == 2) == zero.zero_quantized_weights == (index == 0)
    assert str(config.communication_data_type) == ("torch.bfloat16" if index == 2 else "None")
