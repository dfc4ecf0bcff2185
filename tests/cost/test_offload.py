"""Traffic of offloaded states, counted by hand from the engine's copies."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from types import ModuleType
from unittest.mock import patch

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.cost.test_communication import settings
from tests.cost.test_mutations import mutated, numbers
from tests.planner.examples import pool
from vdsgen.cost import engine_defaults, offload
from vdsgen.cost.offload import (
    GB,
    HOST_MEMORY_GB_PER_SECOND,
    Host,
    SegmentWork,
    activation_waiting_seconds,
    flash_traffic_bytes,
    offload_seconds,
    offload_traffic_bytes,
)
from vdsgen.spec.calibration import Calibration
from vdsgen.spec.lab import Link, Nvme
from vdsgen.spec.plan import Offload

FREE = Host(1e12, 1e12)


def test_nothing_offloaded_costs_nothing() -> None:
    assert offload_seconds(settings(1, 4), 1000, 1000, FREE) == (0.0, 0.0)


@pytest.mark.parametrize(
    ("zero", "micro_batches", "parameters", "bytes_a_parameter"),
    [
        (1, 1, "none", 4 + 2),  # fp32 gradients down, bf16 parameters up
        (1, 4, "none", 4 + 2),  # all gradients wait on the GPU
        (2, 1, "none", 4 + 2),  # fp32 gradients down, bf16 parameters up
        (2, 4, "none", 4 + 2),  # sums in fp32 wait on the GPU
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


def test_zero_2_adds_up_in_host_memory_where_sums_have_the_models_dtype() -> None:
    layout = settings(
        1, 4, 2, gradient_accumulation_steps=4, gradient_accumulation_dtype="bf16", offload_optimizer="cpu"
    )
    # bf16 sums down four times, up three times
    assert offload_traffic_bytes(layout, 4000, 4000) == pytest.approx(1000 * (4 * 2 + 3 * 2 + 4 + 2))


@pytest.mark.parametrize(
    ("zero", "optimizer", "parameters", "read", "written"),
    [
        (3, "nvme", "none", 16, 16),  # master weights and two moments both ways, gradients too
        (3, "cpu", "none", 0, 0),
        (2, "nvme", "none", 0, 0),  # takes it for host memory
        (3, "nvme", "nvme", 16 + 2 * 3 * 2 / 2, 16 + 2 / 2),  # half of the share stays in host memory
    ],
)
def test_flash_is_read_and_written(
    zero: int, optimizer: Offload, parameters: Offload, read: float, written: float,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr(engine_defaults, "NVME_MAX_PARAMETERS_IN_HOST", 500)
    layout = settings(
        1, 4, zero, gradient_accumulation_steps=3, offload_optimizer=optimizer, offload_parameters=parameters
    )
    assert flash_traffic_bytes(layout, 4000, 4000) == pytest.approx((1000 * read, 1000 * written))
    slow = Host(1e30, 1e30, 1e3, 1e2)
    assert offload_seconds(layout, 4000, 4000, slow)[0] == pytest.approx(read + 10 * written)


def test_activations_are_waited_for_where_a_copy_takes_longer_than_what_runs_beside_it() -> None:
    """Three segments; a copy of the last two takes 2 s. The first has latents, which stay."""
    host = Host(10.0, 1e30)
    first = SegmentWork(0.0, 1.0, 3.0)
    other = SegmentWork(20.0, 1.0, 3.0)
    # Down, each has 1 s of forward beside it; up, the last has nothing, the one before 3 s of backward.
    assert activation_waiting_seconds([first, other, other], host, overlaps=True) == 1 + 1 + 2
    assert activation_waiting_seconds([first, other, other], host, overlaps=False) == 8
    assert activation_waiting_seconds([first], host, overlaps=True) == 0


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
    flash = Nvme(path="/flash", capacity_gib=1000, read_gb_per_second=6.0, write_gb_per_second=2.0)
    shared = Host.of(pool(4, nvme=flash))
    assert (shared.flash_read_bytes_per_second, shared.flash_write_bytes_per_second) == (1.5 * GB, 0.5 * GB)
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


def wrong_figures(module: ModuleType) -> Iterator[str]:
    """Where functions of the module give other figures than those counted by hand."""
    share, limit = 1000, 500
    for zero, sums, steps, parameters, down_and_up in (
        (1, "fp32", 4, "none", 4 + 2),
        (2, "fp32", 4, "none", 4 + 2),
        (2, "bf16", 1, "none", 4 + 2),
        (2, "bf16", 2, "none", 2 * 2 + 2 + 4 + 2),
        (2, "bf16", 4, "none", 4 * 2 + 3 * 2 + 4 + 2),
        (3, "fp32", 4, "none", 4 * 8 + 4 + 2),
        (3, "fp32", 4, "cpu", 4 * 8 + 4 + 4 * 2 * 2),
    ):
        layout = settings(
            1, 4, zero, gradient_accumulation_steps=steps, gradient_accumulation_dtype=sums,
            offload_optimizer="cpu", offload_parameters=parameters,
        )  # fmt: skip
        if module.offload_traffic_bytes(layout, 4 * share, 4 * share) != share * down_and_up:
            yield f"traffic of ZeRO-{zero}"
        update = module.offload_seconds(layout, 4 * share, 4 * share, module.Host(1.0, 1.0))[1]
        if update != share * (28 + 4 + 2):
            yield "AdamW"
    whole = settings(1, 4, 2, dtype="fp32", gradient_accumulation_dtype="fp32", offload_optimizer="cpu")
    if module.offload_seconds(whole, 4 * share, 4 * share, module.Host(1.0, 1.0))[1] != share * 28:
        yield "AdamW of an fp32 model"
    still = settings(1, 4, 2)
    if module.offload_seconds(still, 4 * share, 4 * share, module.Host(1.0, 1.0)) != (0, 0):
        yield "nothing offloaded"
    with patch.object(engine_defaults, "NVME_MAX_PARAMETERS_IN_HOST", limit):
        for zero, optimizer, parameters, flash in (
            (2, "nvme", "none", (0, 0)),
            (3, "cpu", "none", (0, 0)),
            (3, "nvme", "none", (16 * share, 16 * share)),
            (3, "nvme", "nvme", (16 * share + 500 * 2 * 2 * 3, 16 * share + 500 * 2)),
        ):
            layout = settings(
                1, 4, zero, gradient_accumulation_steps=3, offload_optimizer=optimizer,
                offload_parameters=parameters,
            )  # fmt: skip
            if module.flash_traffic_bytes(layout, 4 * share, 4 * share) != flash:
                yield f"flash, ZeRO-{zero}"
        few = settings(1, 4, 3, offload_optimizer="nvme", offload_parameters="nvme")
        if module.flash_traffic_bytes(few, 4 * 100, 4 * 100) != (1600, 1600):
            yield "flash of few parameters"
    work, slow = module.SegmentWork, module.Host(10.0, 1.0)
    segments = [work(0.0, 1.0, 3.0), work(20.0, 1.0, 3.0), work(20.0, 1.0, 3.0)]
    waiting = [
        module.activation_waiting_seconds(segments, slow, overlaps=overlaps) for overlaps in (True, False)
    ]
    if waiting != [4.0, 8.0]:
        yield "activations"
    if module.Host.of(pool(2)) != module.Host(24e9, 40e9):
        yield "a host of two ranks"
    flash_pool = pool(
        2, nvme=Nvme(path="/flash", capacity_gib=1, read_gb_per_second=6, write_gb_per_second=2)
    )
    if module.Host.of(flash_pool)[2:] != (3e9, 1e9):
        yield "flash of two ranks"


UNUSED = {"offload: 5.7 in HOST_LINK = Link(bandwidth_gb_per_second=24.0, latency_microseconds=5.7)"}
"""Copies are long beside it."""


def test_every_number_in_the_formulas_counts() -> None:
    survivors = set()
    for number, node, tree in numbers("offload"):
        node.value = mutated(number.value)
        module = ModuleType("offload")
        with suppress(Exception):  # a number that makes nonsense of a formula may raise anything
            exec(compile(tree, "offload.py", "exec"), module.__dict__)
            if next(wrong_figures(module), None) is None:
                survivors.add(number.place)
        node.value = number.value
    assert survivors == UNUSED


def test_the_formulas_as_they_are_are_right() -> None:
    assert list(wrong_figures(offload)) == []
