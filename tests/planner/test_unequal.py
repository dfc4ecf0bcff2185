"""Pools of unequal GPUs, through the planner's front door."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import Phase, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from tests.cost.unequal import gpu
from tests.planner.examples import experiment, pool, profile
from vdsgen.catalog import resolve_gpu
from vdsgen.errors import NoPlanFitsError
from vdsgen.planner.arrange import MOST, arrangements
from vdsgen.planner.plan import make_plan
from vdsgen.planner.plan_settings import settings_of
from vdsgen.planner.resolve import workload_of
from vdsgen.planner.search import SIMPLER_WITHIN
from vdsgen.planner.tables import step_time_of
from vdsgen.planner.text import plan_text
from vdsgen.spec.lab import Gpu, NodeGroup, Pool
from vdsgen.spec.plan import Plan

LINKS: dict[str, Any] = {"intra_node": pool().intra_node, "inter_node": pool(nodes=2).inter_node}


def mixed(*gpus: Gpu, **changes: Any) -> Pool:
    """One node of these GPUs."""
    return Pool(name="example", gpus=gpus, **LINKS, host_memory_gib=128.0, **changes)


def groups(*entries: NodeGroup, **changes: Any) -> Pool:
    return Pool(name="example", groups=entries, **LINKS, host_memory_gib=128.0, **changes)


def planned(on: Pool, blocks: int = 16, hidden: int = 1024, **changes: Any) -> Plan:
    return make_plan(experiment(blocks, hidden, **changes), on, profile(blocks, hidden))


def sizes(plan: Plan) -> list[int]:
    """Layers of each stage."""
    return [stage.layers[1] - stage.layers[0] for stage in plan.stages]


PIPELINE: dict[str, Any] = {
    "pipeline_parallel_size": 4,
    "micro_batch_size": 1,
    "activation_checkpoint_interval": 0,
    "offload_optimizer": "none",
}
"""Recomputing would make room, and so would offload."""


def test_stages_on_larger_gpus_hold_more_layers() -> None:
    """Two GPUs of 6 GB and two of 3 in a pipeline of four, too full for even stages."""
    large, small = gpu(6.0), gpu(3.0)
    with pytest.raises(NoPlanFitsError):
        planned(mixed(*[small] * 4), constraints=PIPELINE)
    plan = planned(mixed(small, small, large, large), constraints=PIPELINE)
    capacities = [stage.capacity_bytes for stage in plan.stages]
    assert sorted(capacities) == [3 * 2**30] * 2 + [6 * 2**30] * 2
    assert all(stage.memory.peak_bytes <= stage.capacity_bytes for stage in plan.stages)
    held: dict[int, list[int]] = {capacity: [] for capacity in capacities}
    for capacity, layers in zip(capacities, sizes(plan), strict=True):
        held[capacity].append(layers)
    few, many = (held[capacity] for capacity in sorted(held))
    assert max(few) < min(many)


def test_stages_on_faster_gpus_compute_more_layers() -> None:
    slow, fast = gpu(24.0, 70.0), gpu(24.0, 165.0)
    plan = planned(mixed(slow, fast), blocks=20, constraints={"pipeline_parallel_size": 2})
    by_device = dict(zip(plan.nodes[0].devices, sizes(plan), strict=True))
    assert 1.4 < by_device[1] / by_device[0] < 2.4
    busy = [stage.forward_seconds + stage.backward_seconds for stage in plan.stages]
    # As even as whole layers allow.
    assert max(busy) - min(busy) < 2 * max(busy) / min(sizes(plan))


def test_an_rtx_3090_and_a_4090_get_stages_by_their_speed() -> None:
    one = Pool(name="two", gpus=("rtx-3090", "rtx-4090"), intra_node="pcie-4.0-x16", host_memory_gib=64.0)
    plan = planned(one, blocks=20, constraints={"pipeline_parallel_size": 2})
    by_device = dict(zip(plan.nodes[0].devices, sizes(plan), strict=True))
    assert by_device[1] > 1.4 * by_device[0]


def test_all_ranks_compute_in_a_format_that_all_gpus_have() -> None:
    plan = planned(mixed(gpu(), gpu(bf16=False)))
    assert plan.precision.dtype == "fp16"
    assert planned(mixed(gpu(), gpu())).precision.dtype == "bf16"


def test_gpus_of_one_node_are_put_together_by_kind() -> None:
    slow, fast = gpu(24.0, 60.0), gpu(24.0, 240.0)
    plan = planned(mixed(slow, fast, slow, fast), constraints={"pipeline_parallel_size": 2})
    assert plan.nodes[0].devices in ((1, 3, 0, 2), (0, 2, 1, 3))


def test_a_slow_gpu_that_holds_the_others_up_is_left_out() -> None:
    crawling = gpu(24.0, 2.0)
    plan = planned(mixed(gpu(), gpu(), crawling), global_batch_size=16)
    assert plan.nodes[0].devices == (0, 1)
    assert plan.parallel.world_size == 2


def test_hosts_are_used_in_the_order_that_is_faster() -> None:
    """The first stages hold the most micro-batches: here they are faster on the larger GPUs."""
    large, small = gpu(8.0), gpu(4.0)
    small_first = groups(
        NodeGroup(hosts=("ant",), gpu=small, gpus_per_node=2),
        NodeGroup(hosts=("bee",), gpu=large, gpus_per_node=2),
    )
    plan = planned(small_first, constraints=PIPELINE)
    assert [node.host for node in plan.nodes] == ["bee", "ant"]
    assert [node.node for node in plan.nodes] == [1, 0]
    large_first = groups(*reversed(small_first.groups or ()))
    assert planned(large_first, constraints=PIPELINE).predicted == plan.predicted


def test_free_gpus_are_planned_as_a_pool_of_so_many() -> None:
    shared = pool(8, 24.0, free_gpus=(1, 4, 6, 7))
    plan, alone = planned(shared), planned(pool(4, 24.0))
    assert plan.predicted == alone.predicted
    assert plan.stages == alone.stages
    (node,) = plan.nodes
    assert (node.gpus, node.devices) == (8, (1, 4, 6, 7))
    assert alone.nodes == ()


def test_of_an_odd_number_of_free_gpus_fewer_may_be_used() -> None:
    """Seven do not divide a batch of sixteen over data ranks; a pipeline of seven has a long bubble."""
    plan = planned(pool(8, 24.0, free_gpus=(0, 1, 2, 4, 5, 6, 7)), blocks=8)
    assert plan.parallel.world_size in (4, 6)
    assert plan.nodes[0].devices == (0, 1, 2, 4, 5, 6, 7)[: plan.parallel.world_size]


def test_a_plan_is_timed_again_from_its_own_record() -> None:
    """What commands print of a plan that they read."""
    on = groups(
        NodeGroup(hosts=("ant",), gpu=gpu(12.0), gpus_per_node=3, free_gpus=(0, 2)),
        NodeGroup(hosts=("bee",), gpu=gpu(24.0, 200.0), gpus_per_node=2),
    )
    plan = Plan.model_validate_json(planned(on).model_dump_json())
    workload = workload_of(experiment(16), plan.inputs.pool, profile(16), plan.nodes)
    assert step_time_of(plan, workload).step_seconds == plan.predicted.step_seconds
    settings = settings_of(plan)
    assert [workload.capacity_of(settings, stage.index) for stage in plan.stages] == [
        stage.capacity_bytes for stage in plan.stages
    ]
    text = plan_text(plan, workload)
    assert "2 x the GPU of pool example (24 GiB)" in text


KINDS = st.builds(gpu, st.sampled_from([2.0, 3.0, 6.0]), st.sampled_from([60.0, 120.0]))


def same_but_for_its_record(plan: Plan) -> dict[str, Any]:
    values = json.loads(plan.model_dump_json())
    return {key: value for key, value in values.items() if key not in ("inputs", "nodes")}


@given(kind=KINDS, per_node=st.sampled_from([2, 4]), nodes=st.integers(1, 3), batch=st.sampled_from([8, 12]))
@hypothesis_settings(max_examples=12, deadline=None)
def test_a_mixed_pool_of_equal_gpus_has_the_plan_of_a_plain_one(
    kind: Gpu, per_node: int, nodes: int, batch: int
) -> None:
    plain = Pool(
        name="example", gpu=kind, gpus_per_node=per_node, nodes=nodes, **LINKS, host_memory_gib=128.0
    )
    listed = Pool(name="example", gpus=(kind,) * per_node, nodes=nodes, **LINKS, host_memory_gib=128.0)
    apart = groups(*(NodeGroup(gpus=(kind,) * per_node) for _ in range(nodes)))
    try:
        wanted = same_but_for_its_record(planned(plain, 8, global_batch_size=batch))
    except NoPlanFitsError as error:
        for other in (listed, apart):
            with pytest.raises(NoPlanFitsError, match="no plan fits") as raised:
                planned(other, 8, global_batch_size=batch)
            assert raised.value.message == error.message
        return
    assert same_but_for_its_record(planned(listed, 8, global_batch_size=batch)) == wanted
    assert same_but_for_its_record(planned(apart, 8, global_batch_size=batch)) == wanted


@given(gpus=st.lists(KINDS, min_size=2, max_size=4), which=st.integers(0, 3), larger=st.booleans())
@hypothesis_settings(max_examples=8, deadline=None, phases=(Phase.explicit, Phase.generate))
def test_a_larger_or_faster_gpu_never_makes_the_plan_slower(
    gpus: list[Gpu], which: int, larger: bool
) -> None:
    at = which % len(gpus)
    change = {"memory_gib": 12.0} if larger else {"fp16_tflops": 480.0, "bf16_tflops": 480.0}
    better = [*gpus]
    better[at] = gpus[at].model_copy(update=change)
    # Else more memory may make exact sums possible, which are slower.
    sums: dict[str, Any] = {"gradient_accumulation_dtype": "model"}
    try:
        before = planned(mixed(*gpus), 8, **sums).predicted.step_seconds
    except NoPlanFitsError:
        return
    after = planned(mixed(*better), 8, **sums).predicted.step_seconds
    assert after <= before * (1 + SIMPLER_WITHIN) * (1 + 1e-9)


@given(
    st.lists(st.lists(st.sampled_from(["rtx-3090", "rtx-4090", "a100-80gb-sxm", "rtx-2080-ti"]), min_size=1,
                      max_size=4), min_size=1, max_size=4)
)  # fmt: skip
@hypothesis_settings(max_examples=40, deadline=None)
def test_arrangements_use_each_free_gpu_at_most_once(nodes: list[list[str]]) -> None:
    on = groups(*(NodeGroup(gpus=tuple(gpus)) for gpus in nodes))
    found = arrangements(on)
    assert 1 <= len(found) <= MOST
    for used in found:
        places = [(one.node, device) for one in used for device in one.devices]
        assert len(set(places)) == len(places)
        assert all(device < len(nodes[node]) for node, device in places)
        kinds = {resolve_gpu(nodes[node][device]) for node, device in places}
        every = [
            (node, device)
            for node, gpus in enumerate(nodes)
            for device, name in enumerate(gpus)
            if resolve_gpu(name) in kinds
        ]
        assert sorted(places) == every, "a kind is used everywhere or nowhere"
    first = [(one.node, device) for one in found[0] for device in one.devices]
    assert len(first) == sum(map(len, nodes)), "the first uses all GPUs"
