"""Traffic of offloaded states, counted by hand from the engine's copies."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.cost.test_communication import settings
from tests.planner.examples import pool
from vdsgen.cost.offload import GB, HOST_MEMORY_GB_PER_SECOND, Host, offload_seconds, offload_traffic_bytes
from vdsgen.spec.calibration import Calibration
from vdsgen.spec.lab import Link

FREE = Host(1e12, 1e12)


def test_nothing_offloaded_costs_nothing() -> None:
    assert offload_seconds(settings(1, 4), 1000, 1000, FREE) == (0.0, 0.0)


@pytest.mark.parametrize(
    ("zero", "micro_batches", "parameters", "bytes_a_parameter"),
    [
        (2, 1, "none", 4 + 2),  # fp32 gradients down, bf16 parameters up
        (2, 4, "none", 4 * 2 + 3 * 2 + 4 + 2),  # bf16 sums down four times, up three times
        (3, 1, "none", 4 + 4 + 4 + 2),  # fp32 sums down and up; then as above
        (3, 4, "none", 4 * 8 + 4 + 2),
        (3, 1, "cpu", 8 + 4 + 2 * 2),  # gathered twice; nothing goes up after the update
    ],
)
def test_bytes_of_each_ranks_share(
    zero: int, micro_batches: int, parameters: str, bytes_a_parameter: int
) -> None:
    layout = settings(
        1, 4, zero, gradient_accumulation_steps=micro_batches,
        offload_optimizer="cpu", offload_parameters=parameters,
    )  # fmt: skip
    assert offload_traffic_bytes(layout, 4000, 4000) == pytest.approx(1000 * bytes_a_parameter)


def test_adamw_runs_at_the_hosts_memory_bandwidth() -> None:
    layout = settings(1, 4, 2, gradient_accumulation_steps=1, offload_optimizer="cpu")
    traffic, update = offload_seconds(layout, 4000, 4000, Host(1e3, 1e2))
    assert traffic == pytest.approx(6.0)
    # 28 bytes of AdamW; reads 4 and writes 2 for the half precision copy.
    assert update == pytest.approx(1000 * 34 / 1e2)


def test_ranks_share_memory_and_switches() -> None:
    alone = Host.of(pool(1))
    assert alone == Host(24.0 * GB, HOST_MEMORY_GB_PER_SECOND * GB)
    switched = pool(4, host_link=Link(bandwidth_gb_per_second=16.0, latency_microseconds=5.0),
                    gpus_per_host_link=2, host_memory_bandwidth_gb_per_second=400.0)  # fmt: skip
    assert Host.of(switched) == Host(8.0 * GB, 100.0 * GB)
    assert Host.of(pool(8)).link_bytes_per_second == pytest.approx(HOST_MEMORY_GB_PER_SECOND * GB / 8)
    calibration = Calibration(
        host_link_bandwidth_gb_per_second=11.0, host_memory_bandwidth_gb_per_second=55.0
    )
    assert Host.of(pool(1, calibration=calibration)) == Host(11.0 * GB, 55.0 * GB)


@given(st.floats(1e6, 1e12), st.floats(1.0, 10.0), st.integers(1, 8))
def test_a_faster_host_is_never_slower(rate: float, factor: float, micro_batches: int) -> None:
    layout = settings(1, 2, 2, gradient_accumulation_steps=micro_batches, offload_optimizer="cpu")
    slow = offload_seconds(layout, 10**6, 10**6, Host(rate, rate))
    fast = offload_seconds(layout, 10**6, 10**6, Host(rate * factor, rate * factor))
    assert fast[0] <= slow[0]
    assert fast[1] <= slow[1]
