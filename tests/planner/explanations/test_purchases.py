"""What the next one buys, against planning at every size."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from tests.planner.examples import experiment, pool, profile
from tests.planner.explanations.cases import case, case_or_none
from vdsgen.planner.again import fastest_seconds
from vdsgen.planner.explanations import changes
from vdsgen.planner.explanations.purchases import STEP_GIB, least, next_memory, purchases, wins
from vdsgen.planner.plan import make_plan
from vdsgen.planner.search import SIMPLER_WITHIN
from vdsgen.spec.lab import Link


@given(st.integers(0, 70), st.integers(0, 70))
def test_least_is_the_first_that_holds(threshold: int, most: int) -> None:
    expected = next((number for number in range(1, most + 1) if number >= threshold), None)
    assert least(lambda number: number >= threshold, most) == expected


@given(
    blocks=st.integers(3, 8),
    gpus=st.sampled_from([1, 2, 4]),
    memory_gib=st.sampled_from([1.5, 2.0, 2.5, 3.0]),
    global_batch_size=st.sampled_from([4, 8]),
)
@settings(max_examples=6)
def test_the_next_gib_is_the_smallest_increase_that_wins(**knobs: Any) -> None:
    known = case_or_none(**knobs)
    assume(known is not None)
    assert known is not None
    workload, winner, _, _ = known
    bought = next_memory(workload, winner)
    goal = winner.time.step_seconds / (1 + SIMPLER_WITHIN)
    there = changes.memory_gib(workload)
    most = 60 if bought.added_gib is None else round(bought.added_gib / STEP_GIB)
    faster = [
        steps
        for steps in range(1, most + 1)
        if fastest_seconds(changes.with_gpu_memory(workload, there + steps * STEP_GIB)) < goal
    ]
    assert faster == ([] if bought.added_gib is None else [most])
    assert bought.gain_fraction is not None
    assert (bought.gain_fraction > 0) or bought.added_gib is None


def test_what_is_bought_is_what_would_be_planned() -> None:
    workload, winner, named, plan = case(8, memory_gib=3.0, global_batch_size=8)
    by_words = {one.change: one for one in purchases(workload, winner, named)}
    now = plan.predicted.samples_per_second
    batch = by_words["a global batch of 16 (now 8)"]
    again = make_plan(experiment(8, 1024, global_batch_size=16), named, profile(8, 1024))
    assert batch.samples_per_second == pytest.approx(again.predicted.samples_per_second, rel=1e-3)
    assert batch.samples_per_second is not None
    assert batch.gain_fraction == pytest.approx(batch.samples_per_second / now - 1)
    five = by_words["5 GPUs in the node (now 4)"]
    again = make_plan(experiment(8, 1024, global_batch_size=8), pool(5, 3.0), profile(8, 1024))
    assert five.samples_per_second == pytest.approx(again.predicted.samples_per_second, rel=1e-3)


def test_one_gpu_that_wins_nothing_is_followed_by_the_number_that_does() -> None:
    # 48 clips on 4 GPUs; 5 divide neither the batch nor the model's 2 blocks.
    workload, winner, named, _ = case(2, 256, gpus=4, memory_gib=24.0, global_batch_size=48)
    gpus = [one for one in purchases(workload, winner, named) if one.resource == "gpus"]
    assert [one.change for one in gpus] == ["5 GPUs in the node (now 4)", "6 GPUs in the node (now 4)"]
    assert gpus[0].gain_fraction == pytest.approx(0.0) and "4 of 5 GPUs used" in gpus[0].plan
    assert gpus[1].gain_fraction is not None and gpus[1].gain_fraction > 0.2


def test_pins_are_let_go_one_by_one_and_together() -> None:
    pins = {"pipeline_parallel_size": 4, "activation_checkpoint_interval": 1}
    workload, winner, named, _ = case(8, memory_gib=12.0, constraints=pins, precision="fp16")
    pinned = [one for one in purchases(workload, winner, named) if one.resource == "pin"]
    assert [one.change for one in pinned] == [
        "without constraints.pipeline_parallel_size: 4",
        "without constraints.activation_checkpoint_interval: 1",
        "without training.precision: fp16",
        "without any pin",
    ]
    gains = [one.gain_fraction or 0.0 for one in pinned]
    assert gains[-1] >= max(gains) - SIMPLER_WITHIN and gains[-1] > 0.2


def test_the_next_link_is_one_that_the_gpu_can_have_and_faster() -> None:
    workload, _, _, _ = case(4, 256, nodes=2)
    named = workload.pool.model_copy(
        update={"gpu": "a100-80gb-sxm", "intra_node": "pcie-4.0-x16", "inter_node": "ethernet-10g"}
    )
    slow = changes.with_link(
        workload, "intra_node", Link(bandwidth_gb_per_second=24.0, latency_microseconds=5.7)
    )
    words = [change.words for change in changes.next_links(slow, named)]
    assert [one.split(",")[0] for one in words] == [
        "nvlink-3 in the node",
        "pcie-5.0-x16 in the node",
        "ethernet-100g between nodes",
    ]
    assert "no such link" in words[1] and "no such link" not in words[0]


@pytest.mark.parametrize("resource", ["intra_node", "gpu_speed", "gpu_memory", "global_batch"])
def test_more_of_anything_never_loses(resource: str) -> None:
    for memory in (2.0, 4.0, 12.0):
        known = case_or_none(blocks=6, memory_gib=memory, global_batch_size=8)
        if known is None:
            continue
        workload, winner, _, _ = known
        more = {
            "intra_node": lambda w: changes.with_faster_link(w, "intra_node", 2.0),
            "gpu_speed": lambda w: changes.with_gpu_speed(w, 2.0),
            "gpu_memory": lambda w: changes.with_gpu_memory(w, 2 * changes.memory_gib(w)),
            "global_batch": lambda w: changes.with_global_batch(w, 16),
        }[resource](workload)
        factor = 2.0 if resource == "global_batch" else 1.0
        assert fastest_seconds(more) <= factor * fastest_seconds(workload) * (1 + 1e-9)
        assert not wins(winner, winner)
