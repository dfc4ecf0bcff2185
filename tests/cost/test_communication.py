"""Volumes and links: the layout is the engine's, and a ring moves what the formula says."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.planner.examples import pool
from vdsgen.cost.communication import GB, Path, Topology, reduction_seconds, step_traffic
from vdsgen.cost.settings import Settings
from vdsgen.spec.calibration import Calibration, CollectiveRate
from vdsgen.spec.lab import Link


def settings(pipeline: int, data: int, zero: int = 1, **changes: object) -> Settings:
    values: dict[str, object] = {
        "pipeline_parallel_size": pipeline,
        "data_parallel_size": data,
        "zero_stage": zero,
        "micro_batch_size": 1,
        "gradient_accumulation_steps": 4,
        "activation_checkpoint_interval": 0,
        "dtype": "bf16",
        "gradient_accumulation_dtype": "fp32" if zero else "bf16",
        "reduce_bucket_elements": 1000,
        "allgather_bucket_elements": 1000,
        **changes,
    }
    return Settings(**values)  # type: ignore[arg-type]


@pytest.mark.parametrize(("nodes", "per_node"), [(1, 8), (2, 4), (4, 2)])
@pytest.mark.parametrize(("pipeline", "data"), [(1, 8), (2, 4), (4, 2), (8, 1)])
def test_groups_cross_nodes_where_the_engines_groups_do(
    nodes: int, per_node: int, pipeline: int, data: int
) -> None:
    from deepspeed.runtime.pipe.topology import PipeDataParallelTopology

    engine = PipeDataParallelTopology(num_pp=pipeline, num_dp=data)
    ours = Topology.of(pool(per_node, nodes=nodes))
    layout = settings(pipeline, data)

    def shared_by(groups: list[list[int]]) -> dict[int, int]:
        """How many of the groups that cross nodes touch each node."""
        counts: dict[int, int] = {}
        for group in groups:
            touched = {rank // per_node for rank in group}
            if len(touched) > 1:
                for node in touched:
                    counts[node] = counts.get(node, 0) + 1
        return counts

    rings = engine.get_axis_comm_lists("data") if data > 1 else [[rank] for rank in range(pipeline)]
    crossing = shared_by(rings)
    for stage, ring in enumerate(rings):
        touched = {rank // per_node for rank in ring}
        bandwidth = 20.0 if len(touched) == 1 else 5.0 / max(crossing[node] for node in touched)
        assert ours.data_group(layout, stage).bytes_per_second == pytest.approx(bandwidth * GB)

    for stage in range(pipeline - 1):
        pairs = [
            (engine.get_rank(pipe=stage, data=index), engine.get_rank(pipe=stage + 1, data=index))
            for index in range(data)
        ]
        senders = [a // per_node for a, b in pairs if a // per_node != b // per_node]
        bandwidth = 20.0 if not senders else 5.0 / max(senders.count(node) for node in senders)
        assert ours.stage_boundary(layout, stage).bytes_per_second == pytest.approx(bandwidth * GB)


@pytest.mark.parametrize(("nodes", "per_node"), [(1, 8), (2, 4), (4, 2)])
@pytest.mark.parametrize(
    ("pipeline", "data", "tensor"), [(1, 4, 2), (2, 2, 2), (4, 1, 2), (1, 2, 4), (2, 1, 4), (1, 1, 8)]
)
def test_ranks_that_share_blocks_are_neighbours_as_in_the_engine(
    nodes: int, per_node: int, pipeline: int, data: int, tensor: int
) -> None:
    from deepspeed.runtime.pipe.topology import PipeModelDataParallelTopology

    engine = PipeModelDataParallelTopology(num_pp=pipeline, num_mp=tensor, num_dp=data)
    ours = Topology.of(pool(per_node, nodes=nodes))
    layout = settings(pipeline, data, tensor_parallel_size=tensor)

    def nodes_of(ranks: list[int]) -> set[int]:
        return {rank // per_node for rank in ranks}

    if per_node % tensor == 0:
        assert all(len(nodes_of(group)) == 1 for group in engine.get_axis_comm_lists("model"))
        assert ours.tensor_group(layout).bytes_per_second == pytest.approx(20.0 * GB)
    else:
        with pytest.raises(AssertionError, match="on one node"):
            ours.tensor_group(layout)
    rings = engine.get_axis_comm_lists("data") if data > 1 else []
    crossing = [ring for ring in rings if len(nodes_of(ring)) > 1]
    for ring in rings if per_node % tensor == 0 else []:
        sharing = max(sum(node in nodes_of(other) for other in crossing) for node in nodes_of(ring))
        bandwidth = 5.0 / sharing if ring in crossing else 20.0
        stage = engine.get_coord(ring[0]).pipe
        assert ours.data_group(layout, stage).bytes_per_second == pytest.approx(bandwidth * GB)
    for stage in range(pipeline - 1):
        senders = [
            rank // per_node
            for rank in engine.filter_match(pipe=stage)
            if rank // per_node != (rank + data * tensor) // per_node
        ]
        bandwidth = 20.0 if not senders else 5.0 / max(senders.count(node) for node in senders)
        assert ours.stage_boundary(layout, stage).bytes_per_second == pytest.approx(bandwidth * GB)


@given(st.integers(1, 64), st.floats(1, 1e12))
def test_an_all_reduce_is_a_scatter_and_a_gather(ranks: int, volume: float) -> None:
    path = Path(bytes_per_second=1e9, latency_seconds=1e-6)
    whole = path.ring_seconds(ranks, volume, passes=2)
    assert whole == pytest.approx(2 * path.ring_seconds(ranks, volume, passes=1))
    assert whole <= 2 * volume / 1e9 + 2 * ranks * 1e-6
    if ranks == 1:
        assert whole == 0.0


def test_a_ring_of_four_moves_one_and_a_half_times_the_data() -> None:
    assert Path(1e9, 0.0).ring_seconds(4, 1e9, passes=2) == pytest.approx(1.5)


def test_gradients_travel_in_the_models_dtype() -> None:
    traffic = step_traffic(settings(2, 2, zero=1), 1000, 1000, 3)
    assert traffic.reduce_bytes == 2000.0
    assert traffic.gather_bytes == 2000.0


def test_zero_stages_differ_in_how_often_they_communicate() -> None:
    by_stage = {stage: step_traffic(settings(1, 4, stage), 1000, 1000, 3) for stage in range(4)}
    assert [by_stage[stage].reductions for stage in range(4)] == [1, 1, 4, 4]
    assert [by_stage[stage].gathers for stage in range(4)] == [0, 1, 1, 8]
    assert [by_stage[stage].reduce_passes for stage in range(4)] == [2, 2, 2, 1]


def test_a_bf16_pipeline_shards_its_optimizer_even_without_zero() -> None:
    assert step_traffic(settings(2, 2, 0), 1000, 1000, 3).gathers == 1
    assert (
        step_traffic(settings(2, 2, 0, dtype="fp16", gradient_accumulation_dtype="fp16"), 9, 9, 3).gathers
        == 0
    )


def test_smaller_buckets_pay_more_latency() -> None:
    path, layout = Path(1e9, 1e-5), settings(1, 4)
    traffic = step_traffic(layout, 10**6, 10**6, 3)
    larger = settings(1, 4, reduce_bucket_elements=10**6)
    assert reduction_seconds(traffic, path, layout) > reduction_seconds(traffic, path, larger)


def test_measured_links_replace_the_catalogues() -> None:
    calibration = Calibration(link_bandwidth_gb_per_second=3.0, link_latency_microseconds=0.0)
    path = Topology.of(pool(calibration=calibration)).data_group(settings(1, 4), 0)
    assert path == Path(3.0 * GB, 0.0)


def test_measured_collectives_are_rings_of_their_own() -> None:
    """Eight ranks measured, four used: the steps' latency is what carries over."""
    rate = CollectiveRate(ranks=8, bandwidth_gb_per_second=2.0, latency_microseconds=140.0)
    topology = Topology.of(pool(8, calibration=Calibration(all_reduce=rate)))
    path = topology.data_group(settings(1, 4), 0, "all_reduce")
    assert path.bytes_per_second == pytest.approx(2.0 * GB)
    assert path.ring_seconds(8, 8.0, passes=2) == pytest.approx(140e-6, rel=1e-3)
    assert path.ring_seconds(4, 8.0, passes=2) == pytest.approx(60e-6, rel=1e-3)
    assert topology.data_group(settings(1, 4), 0, "all_gather").bytes_per_second == pytest.approx(20.0 * GB)
    across = Topology.of(pool(4, nodes=2, calibration=Calibration(all_reduce=rate)))
    assert across.data_group(settings(1, 8), 0).bytes_per_second == pytest.approx(5.0 * GB)


def test_a_node_with_several_network_cards_lays_a_ring_over_each() -> None:
    one = Topology.of(pool(4, nodes=2))
    two = Topology.of(pool(4, nodes=2, network_cards=2))
    assert one.data_group(settings(1, 8), 0).bytes_per_second == pytest.approx(5.0 * GB)
    assert two.data_group(settings(1, 8), 0).bytes_per_second == pytest.approx(10.0 * GB)
    # Four flows cross the boundary of 2 x 4; a single flow has one card only.
    assert two.stage_boundary(settings(2, 4), 0).bytes_per_second == pytest.approx(2.5 * GB)
    assert Topology.of(pool(1, nodes=2, network_cards=4)).stage_boundary(
        settings(2, 1), 0
    ).bytes_per_second == pytest.approx(5.0 * GB)


def test_a_ring_between_nodes_is_no_faster_than_inside_them() -> None:
    many = Topology.of(pool(4, nodes=2, network_cards=8))
    path = many.data_group(settings(1, 8), 0)
    assert path.bytes_per_second == pytest.approx(20.0 * GB)
    assert path.latency_seconds == pytest.approx(20e-6)


def test_gpus_behind_one_switch_share_its_uplink() -> None:
    link = Link(bandwidth_gb_per_second=20.0, latency_microseconds=5.0)
    switched = Topology.of(pool(8, host_link=link, gpus_per_host_link=4))
    # 2 x 4: each ring stays behind its switch, and all four flows between stages leave it.
    assert switched.data_group(settings(2, 4), 0).bytes_per_second == pytest.approx(20.0 * GB)
    assert switched.stage_boundary(settings(2, 4), 0).bytes_per_second == pytest.approx(5.0 * GB)
    # 1 x 8: one ring crosses both uplinks once.
    assert switched.data_group(settings(1, 8), 0).bytes_per_second == pytest.approx(20.0 * GB)
    nvlink = pool(
        8, host_link=link.model_copy(update={"bandwidth_gb_per_second": 10.0}), gpus_per_host_link=4
    )
    assert Topology.of(nvlink).stage_boundary(settings(2, 4), 0).bytes_per_second == pytest.approx(20.0 * GB)


@given(
    st.sampled_from([(1, 8), (2, 4), (4, 2), (8, 1)]),
    st.sampled_from([(1, 8), (2, 4), (4, 2)]),
    st.floats(0.1, 100),
    st.floats(1.0, 10.0),
    st.integers(1, 8),
)
def test_a_faster_link_is_never_slower(
    layout: tuple[int, int], box: tuple[int, int], bandwidth: float, factor: float, cards: int
) -> None:
    def seconds(scale: float) -> float:
        base = pool(box[1], nodes=box[0], network_cards=cards)
        link = Link(bandwidth_gb_per_second=bandwidth * scale, latency_microseconds=5.0)
        changed = base.model_copy(update={"intra_node": link})
        if base.inter_node is not None:
            changed = changed.model_copy(update={"inter_node": link})
        topology, plan = Topology.of(changed), settings(*layout)
        total = topology.data_group(plan, 0).ring_seconds(layout[1], 1e9, passes=2)
        if layout[0] > 1:
            total += topology.stage_boundary(plan, 0).send_seconds(1e9)
        return total

    assert seconds(factor) <= seconds(1.0) * (1 + 1e-9)


def test_int8_gradients_are_a_byte_and_a_share_of_a_scale() -> None:
    plain, int8 = settings(1, 4, 1), settings(1, 4, 1, gradient_compression="int8")
    before, after = (step_traffic(one, 10**6, 10**6, 3) for one in (plain, int8))
    assert after.reduce_bytes == pytest.approx(10**6 * (1 + 4 / 256))
    assert (after.gather_bytes, after.gathers) == (before.gather_bytes, before.gathers)


@pytest.mark.parametrize(("dtype", "width"), [("fp32", 4), ("bf16", 2), (None, 4)])
def test_gradients_travel_in_the_communication_dtype(dtype: str | None, width: int) -> None:
    single = {"dtype": "fp32", "gradient_accumulation_dtype": "fp32", "communication_dtype": dtype}
    for stage in range(4):
        traffic = step_traffic(settings(1, 4, stage, **single), 1000, 1000, 3)
        assert traffic.reduce_bytes == width * 1000
        assert traffic.gather_bytes in (0, 4000)


def test_a_second_copy_leaves_one_gather_between_nodes() -> None:
    """The first after the optimizer's step; measured in docs/communication.md."""
    plain = step_traffic(settings(1, 8, 3), 1000, 1000, 3)
    copied = step_traffic(settings(1, 8, 3, hierarchical_partition_size=4), 1000, 1000, 3)
    assert (plain.gathers, plain.secondary_gathers) == (8, 0)
    assert (copied.gathers, copied.secondary_gathers) == (1, 7)


def test_an_all_to_all_loads_links_between_nodes_by_every_rank() -> None:
    ours = Topology.of(pool(4, nodes=2))
    latency = 7 * 20e-6
    # Each of four ranks sends half of its data to the other node, over one card of 5 GB/s.
    assert ours.exchange_seconds(settings(1, 8), 0, 1e9) == pytest.approx(4 * 0.5 / 5 + latency)
    # Within a node, three quarters over its own link.
    assert ours.exchange_seconds(settings(2, 4), 0, 1e9) == pytest.approx(0.75 / 20 + 3 * 10e-6)
    assert ours.exchange_seconds(settings(8, 1), 0, 1e9) == 0
