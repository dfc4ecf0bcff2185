"""Links of nodes that differ, against Topology where they do not, and by hand where they do."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.cost.test_devices import settings
from tests.cost.unequal import gpu, group_of, grouped, in_groups
from tests.planner.examples import experiment, pool, profile
from vdsgen.cost.communication import GB, Topology
from vdsgen.cost.step import StepTimeModel
from vdsgen.cost.unequal_nodes import UnequalTopology, topology_of
from vdsgen.planner.workload import Workload
from vdsgen.spec.lab import Link, NodeGroup, Pool

PLAIN = pool(2, nodes=2)
SLOW = Link(bandwidth_gb_per_second=1.0, latency_microseconds=50.0)


@st.composite
def plain_pools(draw: st.DrawFn) -> Pool:
    """Outer links no faster than inner ones, and no quicker to start."""
    return pool(
        draw(st.sampled_from([1, 2, 4, 8])),
        nodes=draw(st.integers(2, 6)),
        network_cards=draw(st.sampled_from([1, 2, 4])),
        host_link=Link(bandwidth_gb_per_second=20.0, latency_microseconds=5.0),
        gpus_per_host_link=draw(st.sampled_from([1, 2, 4])),
    )


@given(plain_pools(), st.data())
def test_groups_that_are_alike_have_the_paths_of_a_plain_pool(plain: Pool, data: st.DataObject) -> None:
    first = data.draw(st.integers(1, plain.nodes - 1))
    ours, theirs = UnequalTopology(in_groups(plain, [first, plain.nodes - first])), Topology.of(plain)
    world = plain.world_size
    stages = data.draw(st.sampled_from([size for size in range(1, world + 1) if world % size == 0]))
    chosen = settings(stages, world // stages)
    for stage in range(stages):
        for collective in ("all_reduce", "all_gather"):
            found = ours.data_group(chosen, stage, collective)
            wanted = theirs.data_group(chosen, stage, collective)
            assert found.bytes_per_second == pytest.approx(wanted.bytes_per_second)
            # A ring over several nodes waits for the slower of its links; so do we in both.
            assert found.latency_seconds >= wanted.latency_seconds
        if stage + 1 < stages:
            found, wanted = ours.stage_boundary(chosen, stage), theirs.stage_boundary(chosen, stage)
            # A plain pool counts the flows that leave a node, we also those that enter one: where stages
            # begin within a node there may be more of these.
            size = chosen.data_parallel_size
            if plain.gpus_per_node % size == 0 or size % plain.gpus_per_node == 0:
                assert found == wanted
            assert found.bytes_per_second <= wanted.bytes_per_second


@given(plain_pools(), st.data())
def test_steps_on_groups_that_are_alike_take_as_long(plain: Pool, data: st.DataObject) -> None:
    first = data.draw(st.integers(1, plain.nodes - 1))
    world = plain.world_size
    stages = data.draw(st.sampled_from([size for size in (1, 2, 4) if world % size == 0]))
    chosen = settings(stages, world // stages)._replace(gradient_accumulation_steps=4, zero_stage=1)
    cuts = [0, *(round(10 * stage / stages) for stage in range(1, stages)), 10]
    of = Workload(experiment(8), plain, "gpu", profile(8))
    alike = StepTimeModel(of.profile, of.geometry, in_groups(plain, [first, plain.nodes - first]))
    one, other = StepTimeModel(of.profile, of.geometry, plain).step(chosen, cuts), alike.step(chosen, cuts)
    assert other.step_seconds == pytest.approx(one.step_seconds, rel=1e-3)
    assert other.stages == one.stages
    assert other.peak_flops_per_second == one.peak_flops_per_second


def three_hosts() -> tuple[NodeGroup, NodeGroup, NodeGroup]:
    """Two GPUs each; the last host is behind a slow link."""
    return group_of(PLAIN), group_of(PLAIN), group_of(PLAIN, inter_node=SLOW)


def test_a_ring_is_as_slow_as_its_slowest_link() -> None:
    topology = topology_of(grouped(*three_hosts()))
    assert topology.data_group(settings(1, 6), 0).bytes_per_second == 1.0 * GB
    assert topology.data_group(settings(1, 6), 0).latency_seconds == pytest.approx(50e-6)
    # Of three stages each has a host for itself: nothing leaves it but activations.
    assert topology.data_group(settings(3, 2), 0).bytes_per_second == 20.0 * GB


def test_a_stage_boundary_takes_the_links_of_its_two_hosts() -> None:
    topology = topology_of(grouped(*three_hosts()))
    between = [topology.stage_boundary(settings(3, 2), stage).bytes_per_second for stage in (0, 1)]
    assert between == [5.0 * GB / 2, 1.0 * GB / 2], "two flows share each host's one card"
    first = topology_of(grouped(*reversed(three_hosts())))
    between = [first.stage_boundary(settings(3, 2), stage).bytes_per_second for stage in (0, 1)]
    assert between == [1.0 * GB / 2, 5.0 * GB / 2]
    middle = topology_of(grouped(*(three_hosts()[index] for index in (0, 2, 1))))
    between = [middle.stage_boundary(settings(3, 2), stage).bytes_per_second for stage in (0, 1)]
    assert between == [1.0 * GB / 2, 1.0 * GB / 2], "a slow host in the middle slows both"


def test_nodes_of_different_sizes_share_their_own_cards() -> None:
    large, small = group_of(PLAIN, gpus=(gpu(),) * 3), group_of(PLAIN, gpus=(gpu(),))
    topology = topology_of(grouped(large, small))
    assert [topology.node_of(rank) for rank in range(4)] == [0, 0, 0, 1]
    # Stages 0 and 1 of two ranks each: rank 0 sends to 2 within the node, 1 to 3 across.
    assert topology.stage_boundary(settings(2, 2), 0).bytes_per_second == 5.0 * GB
    # Only the second stage's ring leaves the node.
    assert topology.data_group(settings(2, 2), 0).bytes_per_second == 20.0 * GB
    assert topology.data_group(settings(2, 2), 1).bytes_per_second == 5.0 * GB


def test_a_stage_is_as_slow_as_its_slowest_gpu() -> None:
    slow, fast = gpu(24.0, 60.0), gpu(24.0, 240.0)
    of = Workload(experiment(8), PLAIN, "gpu", profile(8))

    def seconds(*gpus: object) -> list[float]:
        groups = [group_of(PLAIN, gpus=gpus[:2]), group_of(PLAIN, gpus=gpus[2:])]
        model = StepTimeModel(of.profile, of.geometry, grouped(*groups))
        return [model.layer_seconds(settings(2, 2), stage)[1] for stage in (0, 1)]

    apart, together = seconds(slow, slow, fast, fast), seconds(slow, fast, slow, fast)
    assert apart[1] < apart[0]
    assert together == [apart[0], apart[0]]
    assert seconds(fast, fast, slow, slow) == list(reversed(apart))
