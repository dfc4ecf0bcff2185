"""Impossible demands: refused with both values and what would work; and what is said when nothing fits."""

from __future__ import annotations

import re
from typing import Any

import pytest

from tests.planner.examples import experiment, pool, profile, workload
from vdsgen.errors import InputError, NoPlanFitsError
from vdsgen.planner.demands import whole_pool_layouts
from vdsgen.planner.no_fit import nearest_miss
from vdsgen.planner.plan import make_plan
from vdsgen.planner.search import search
from vdsgen.spec.constraints import Constraints
from vdsgen.spec.experiment import Experiment
from vdsgen.spec.lab import Pool

IMPOSSIBLE: list[tuple[dict[str, Any], list[str]]] = [
    ({"constraints": {"pipeline_parallel_size": 3}}, ["3", "4 GPUs", "use 2 or 4", "pipeline_parallel_size"]),
    ({"constraints": {"data_parallel_size": 8}}, ["8", "4 GPUs", "use 4"]),
    ({"blocks": 2, "constraints": {"pipeline_parallel_size": 4}}, ["4 pipeline stages", "2 blocks"]),
    (
        {"constraints": {"pipeline_parallel_size": 4, "data_parallel_size": 2}},
        ["pipeline 4 x data 2 is 8 ranks", "4 GPUs"],
    ),
    ({"constraints": {"pipeline_parallel_size": 2, "zero_stage": 2}}, ["ZeRO stage 2", "2 pipeline stages"]),
    ({"constraints": {"activation_checkpoint_interval": 9}}, ["interval 9", "8 blocks"]),
    ({"constraints": {"micro_batch_size": 3}}, ["micro_batch_size 3", "16", "15 or 18", "2 or 4"]),
    (
        {"constraints": {"micro_batch_size": 2, "gradient_accumulation_steps": 3}},
        ["micro_batch_size 2 x gradient_accumulation_steps 3 = 6", "16", "12 or 18"],
    ),
    (
        {
            "constraints": {
                "micro_batch_size": 1, "gradient_accumulation_steps": 2, "data_parallel_size": 4,
            }
        },
        ["= 8", "global_batch_size is 16", "to 8"],
    ),
    (
        {
            "constraints": {
                "micro_batch_size": 1, "gradient_accumulation_steps": 8, "pipeline_parallel_size": 4,
            }
        },
        ["a step sees 8 samples on 4 GPUs", "16"],
    ),
    (
        {
            "global_batch_size": 6,
            "constraints": {"micro_batch_size": 2, "pipeline_parallel_size": 1, "sequence_parallel_size": 1},
        },
        ["6", "8", "4 GPUs"],
    ),
    (
        {"constraints": {"recompute": "selective", "activation_checkpoint_interval": 2}},
        ["every layer a segment", "activation_checkpoint_interval is 2", "leave out one"],
    ),
    (
        {"constraints": {"recompute": "selective", "offload_activations": True}},
        ["not offloaded", "offload_activations is true"],
    ),
    ({"constraints": {"recompute": "selective"}}, ["profile of example has no trace", "leave the pin out"]),
    ({"constraints": {"activation_compression": "int8"}}, ["profile of example has no trace of it"]),
    (
        {"constraints": {"activation_compression": "fp8", "activation_checkpoint_interval": 0}},
        ["packs what checkpointing keeps; activation_checkpoint_interval is 0", "leave out one"],
    ),
    ({"precision": "bf16"}, ["bf16", "gpu-has-bf16"]),
    (
        {"gradient_accumulation_dtype": "fp32", "precision": "fp16", "constraints": {"zero_stage": 0}},
        ["ZeRO stage 0", "fp16", "fp32"],
    ),
]  # fmt: skip


@pytest.mark.parametrize(("demands", "words"), IMPOSSIBLE, ids=[str(demands) for demands, _ in IMPOSSIBLE])
def test_impossible_demands_name_both_values_and_what_works(
    demands: dict[str, Any], words: list[str]
) -> None:
    blocks = demands.pop("blocks", 8)
    with pytest.raises(InputError) as raised:
        make_plan(experiment(blocks, 256, **demands), pool(bf16=False), profile(blocks, 256))
    text = str(raised.value)
    assert raised.value.exit_code == 2
    assert all(word in text for word in words), text


def test_all_gpus_are_used_unless_the_global_batch_is_smaller() -> None:
    assert {layout.world_size for layout in whole_pool_layouts(workload(8, 256))} == {4}
    # Two clips on four GPUs: a pipeline over all of them is searched beside layouts of fewer.
    few = whole_pool_layouts(workload(8, 256, global_batch_size=2))
    assert {layout.world_size for layout in few} == {1, 2, 4}
    assert all(2 % layout.data_parallel_size == 0 for layout in few)
    # One block cannot be cut; one clip can, unless that is forbidden.
    plan = make_plan(experiment(1, 256, global_batch_size=1), pool(), profile(1, 256))
    assert (plan.parallel.world_size, plan.parallel.sequence_parallel_size) == (4, 4)
    whole = experiment(1, 256, global_batch_size=1, constraints={"sequence_parallel_size": 1})
    plan = make_plan(whole, pool(), profile(1, 256))
    assert plan.parallel.world_size == 1
    assert any("1 of 4 GPUs" in reason for reason in plan.reasons)


def test_with_few_clips_neither_all_gpus_nor_one_are_faster_than_the_plan() -> None:
    on = pool(8, nodes=2)
    few = experiment(16, 1024, global_batch_size=4)
    plan = make_plan(few, on, profile(16, 1024))
    for stages in (16, 1):
        pins = {"pipeline_parallel_size": stages, "data_parallel_size": 1}
        pinned = few.model_copy(update={"constraints": Constraints.model_validate(pins)})
        other = make_plan(pinned, on, profile(16, 1024))
        assert other.parallel.world_size == stages
        assert plan.predicted.samples_per_second >= 0.99 * other.predicted.samples_per_second


def test_pinned_layouts_may_leave_gpus_idle_if_they_fill_nodes() -> None:
    pins = {"pipeline_parallel_size": 1, "data_parallel_size": 2}
    plan = make_plan(experiment(4, 256, constraints=pins), pool(4), profile(4, 256))
    assert plan.parallel.world_size == 2
    with pytest.raises(InputError, match="3 ranks"):
        make_plan(
            experiment(
                4,
                256,
                global_batch_size=3,
                constraints={"pipeline_parallel_size": 1, "data_parallel_size": 3},
            ),
            pool(2, nodes=2),
            profile(4, 256),
        )


ON_GPU = {"offload_optimizer": "none", "offload_parameters": "none", "offload_activations": False}
"""Pins that leave nothing but the GPUs' own memory."""


def refused(of: Experiment, on: Pool, blocks: int, hidden: int) -> NoPlanFitsError:
    with pytest.raises(NoPlanFitsError) as raised:
        make_plan(of, on, profile(blocks, hidden))
    return raised.value


def test_no_fit_names_the_nearest_miss_and_remedies_that_work() -> None:
    pins = {"pipeline_parallel_size": 1, "zero_stage": 0}
    error = refused(experiment(24, 1024, constraints=pins), pool(4, 10.0), 24, 1024)
    text = str(error)
    assert error.exit_code == 3
    assert re.search(
        r"needs \d+\.\d\d GiB on stage 0, \d+\.\d\d GiB more than there is \(most of it \w+\)", text
    )
    assert "leave out constraints.zero_stage" in text
    # The remedies are true.
    relaxed = experiment(24, 1024, constraints={"pipeline_parallel_size": 1})
    assert make_plan(relaxed, pool(4, 10.0), profile(24, 1024)).zero.stage > 0
    needed = re.search(r"use GPUs with (\d+) GiB", text)
    assert needed is not None
    assert make_plan(experiment(24, 1024, constraints=pins), pool(4, float(needed[1])), profile(24, 1024))


def test_no_fit_looks_for_more_gpus_and_shorter_clips() -> None:
    large = experiment(24, 2048, global_batch_size=64, constraints=ON_GPU)
    text = str(refused(large, pool(2, 10.0), 24, 2048))
    gpus = re.search(r"use (\d+) GPUs", text)
    assert gpus is not None, text
    plan = make_plan(large, pool(int(gpus[1]), 10.0), profile(24, 2048))
    assert plan.parallel.world_size == int(gpus[1])

    text = str(refused(experiment(4, 1024, frames=1024, size=512), pool(1, 10.0), 4, 1024))
    frames = re.search(r"set data.frames to (\d+) \(now 1024\)", text)
    assert frames is not None, text
    assert make_plan(experiment(4, 1024, frames=int(frames[1]), size=512), pool(1, 10.0), profile(4, 1024))


def test_no_fit_says_which_pin_on_offload_forbids_what_fits() -> None:
    large = experiment(24, 2048, global_batch_size=64, constraints={"offload_optimizer": "none"})
    assert "leave out constraints.offload_optimizer" in str(refused(large, pool(2, 10.0), 24, 2048))


@pytest.mark.parametrize(
    ("pins", "key"),
    [
        ({"offload_optimizer": "cpu", "zero_stage": 0}, "offload_optimizer"),
        ({"offload_optimizer": "nvme"}, "offload_optimizer"),
        ({"offload_parameters": "cpu", "zero_stage": 2}, "offload_parameters"),
        ({"offload_parameters": "cpu", "pipeline_parallel_size": 2}, "offload_parameters"),
        ({"offload_activations": True, "activation_checkpoint_interval": 0}, "offload_activations"),
    ],
)
def test_pins_on_offload_that_nothing_can_follow_are_refused(pins: dict[str, Any], key: str) -> None:
    with pytest.raises(InputError) as caught:
        make_plan(experiment(4, 256, constraints=pins), pool(4), profile(4, 256))
    assert caught.value.problems[0].key == f"constraints.{key}"


def test_the_nearest_miss_is_the_least_that_is_missing() -> None:
    on = workload(24, 2048, on=pool(2, 10.0))
    found = search(on, whole_pool_layouts(on))
    miss = nearest_miss(on, found)
    assert miss is not None
    every = [tally.nearest_miss for tally in found.out_of_memory.values()]
    assert all(other is None or miss.over_bytes <= other.over_bytes for other in every)
    assert miss.over_bytes == miss.memory.peak_bytes - on.capacity_bytes > 0
