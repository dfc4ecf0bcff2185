"""Which kind of GPU every rank has, against counting rank by rank."""

from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from tests.cost.unequal import gpu, group_of, grouped, in_groups
from tests.planner.examples import pool
from vdsgen.cost.devices import Devices, slowest_link, weakest
from vdsgen.cost.settings import Settings
from vdsgen.spec.lab import Gpu, Link, Pool

KINDS = [gpu(24.0), gpu(12.0), gpu(48.0, 300.0)]


def settings(stages: int, data: int) -> Settings:
    return Settings(
        pipeline_parallel_size=stages,
        data_parallel_size=data,
        zero_stage=0,
        micro_batch_size=1,
        gradient_accumulation_steps=1,
        activation_checkpoint_interval=0,
        dtype="bf16",
        gradient_accumulation_dtype="bf16",
        reduce_bucket_elements=1000,
        allgather_bucket_elements=1000,
    )


@st.composite
def mixed_pools(draw: st.DrawFn) -> Pool:
    plain = pool(2, nodes=2)
    groups = draw(
        st.lists(
            st.builds(
                lambda nodes, gpus: group_of(plain, nodes=nodes, gpus=tuple(gpus)),
                st.integers(1, 3),
                st.lists(st.sampled_from(KINDS), min_size=1, max_size=5),
            ),
            min_size=1,
            max_size=4,
        )
    )
    return grouped(*groups)


@given(mixed_pools(), st.data())
def test_kinds_are_those_of_the_ranks_one_by_one(mixed: Pool, data: st.DataObject) -> None:
    by_rank = [one for group in mixed.groups or () for _ in range(group.nodes) for one in group.gpus or ()]
    assert mixed.world_size == len(by_rank)
    devices = Devices(mixed)
    first = data.draw(st.integers(0, len(by_rank) - 1))
    ranks = data.draw(st.integers(1, len(by_rank) - first))
    counted: Counter[object] = Counter()
    for kind, count in devices.count(first, ranks).items():
        counted[devices.views[kind].gpu] += count
    assert counted == Counter(by_rank[first : first + ranks])
    stages = data.draw(st.integers(1, len(by_rank)))
    chosen = settings(stages, len(by_rank) // stages)
    size = chosen.data_parallel_size
    for stage, number in enumerate(devices.classes(chosen)):
        own = {devices.views[kind].gpu for kind in devices.of_stage(chosen, stage)}
        assert own == set(by_rank[stage * size : (stage + 1) * size])
        alike = [s for s, other in enumerate(devices.classes(chosen)) if other == number]
        assert all(devices.of_stage(chosen, s) == devices.of_stage(chosen, stage) for s in alike)


def test_a_plain_pool_is_never_looked_at_rank_by_rank() -> None:
    plain = pool(8, nodes=12_500)
    devices = Devices(plain)
    assert devices.views == [plain]
    assert devices.count(0, 100_000) == {0: 100_000}
    assert devices.classes(settings(4, 25_000)) == (0, 0, 0, 0)


def test_groups_that_are_alike_are_one_kind() -> None:
    assert len(Devices(in_groups(pool(4, nodes=3), [1, 2])).views) == 1


def test_the_weakest_has_the_least_of_everything_and_only_what_all_have() -> None:
    old = Gpu(memory_gib=11.0, fp32_tflops=50.0, fp16_tflops=60.0, memory_bandwidth_gb_per_second=600.0)
    both = weakest([gpu(24.0), old])
    assert (both.memory_gib, both.fp32_tflops, both.fp16_tflops) == (11.0, 30.0, 60.0)
    assert both.bf16_tflops is None
    assert weakest([gpu(), gpu()]) == gpu()


def test_the_slowest_link_is_slow_in_both_ways() -> None:
    wide = Link(bandwidth_gb_per_second=10, latency_microseconds=30)
    quick = Link(bandwidth_gb_per_second=5, latency_microseconds=3)
    assert slowest_link([wide, quick]) == Link(bandwidth_gb_per_second=5, latency_microseconds=30)
