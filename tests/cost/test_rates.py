"""Rates of a pool: the published rows behind the constants, and measured figures in their place."""

from __future__ import annotations

from statistics import median

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.planner.examples import pool
from vdsgen.catalog.load import gpus
from vdsgen.cost.measured import MeasuredRates
from vdsgen.cost.rates import (
    ATTENTION_EFFICIENCY,
    BANDWIDTH_EFFICIENCY,
    KERNEL_SECONDS,
    MATMUL_EFFICIENCY,
    Rates,
)
from vdsgen.spec.calibration import AttentionRate, Calibration, LayerRate, MatrixRate, PositiveSpread
from vdsgen.spec.lab import Gpu, Pool


def of_catalogue(name: str) -> Pool:
    return pool().model_copy(update={"gpu": gpus()[name].figures})


def test_constants_are_what_the_published_rows_say() -> None:
    matmul = [86.9, 83.6, 81.1, 80.3, 60.4, 51.4, 76.7]
    assert pytest.approx(median(matmul) / 100, abs=0.005) == MATMUL_EFFICIENCY
    assert pytest.approx(2903 / 3350, abs=0.0005) == BANDWIDTH_EFFICIENCY
    # A block of 8 tokens, measured here: 0.478 ms for 50 operators forward, 0.944 ms for 138 backward.
    assert pytest.approx((0.478e-3 + 0.944e-3) / 188, rel=0.1) == KERNEL_SECONDS


def test_attention_is_the_median_of_three_cards() -> None:
    shares = []
    for name, reached in (
        ("a100-80gb-sxm", 184.0),
        ("rtx-4090", 3.5 / (1 / 169.28 + 2.5 / 124.57)),
        ("h100-80gb-sxm", 0.35 * 989),
    ):
        allowed = Rates.of(of_catalogue(name), "fp16").plain_attention_flops_per_second()
        shares.append(reached * 1e12 / (allowed / ATTENTION_EFFICIENCY))
    assert pytest.approx(median(shares), abs=0.01) == ATTENTION_EFFICIENCY


def test_rates_are_peaks_times_efficiencies() -> None:
    rates = Rates.of(pool(), "bf16")
    assert rates.matmul_flops_per_second == pytest.approx(120e12 * MATMUL_EFFICIENCY)
    assert rates.bytes_per_second == pytest.approx(900e9 * BANDWIDTH_EFFICIENCY)
    assert rates.peak_flops_per_second == 120e12


def test_measured_rates_replace_estimates() -> None:
    spread = PositiveSpread(median=700.0, low=650.0, high=710.0)
    calibration = Calibration(bf16_matmul_tflops=80.0, memory_bandwidth_gb_per_second=spread)
    rates = Rates.of(pool(calibration=calibration), "bf16")
    assert rates.matmul_flops_per_second == pytest.approx(80e12)
    assert rates.bytes_per_second == pytest.approx(700e9)
    plain = Rates.of(pool(), "bf16")
    ratio = plain.attention_flops_per_second / plain.matmul_flops_per_second
    assert rates.attention_flops_per_second == pytest.approx(80e12 * ratio)
    assert Rates.of(pool(calibration=calibration), "fp32") != plain


def test_a_processors_figures_are_taken_as_they_are() -> None:
    processor = Gpu(fp32_tflops=0.1, memory_bandwidth_gb_per_second=20.0)
    rates = Rates.of(pool().model_copy(update={"gpu": processor}), "fp32")
    assert rates.matmul_flops_per_second == pytest.approx(1e11)
    assert rates.bytes_per_second == pytest.approx(2e10)
    assert rates.product_seconds(3, 1000, 1000, 4) == pytest.approx(4 * 1.006e6 / 2e10)


def test_a_precision_that_the_gpu_lacks_is_an_error() -> None:
    with pytest.raises(ValueError, match="bf16"):
        Rates.of(pool(bf16=False), "bf16")


def test_a_product_is_bound_by_the_slower_of_computing_and_moving() -> None:
    rates = Rates(1e12, 1e12, 1e9, 1e12)
    assert rates.product_seconds(128, 1280, 1280, 2) == pytest.approx(
        2 * (128 * 1280 * 2 + 1280 * 1280) / 1e9
    )
    assert rates.product_seconds(128_000, 12_800, 12_800, 2) == pytest.approx(2 * 128_000 * 12_800**2 / 1e12)


MEASURED = Calibration(
    matrix_rates=(
        MatrixRate(dtype="fp32", rows=512, columns=192, depth=192, tflops=0.1),
        MatrixRate(dtype="fp32", rows=2048, columns=768, depth=192, tflops=0.3),
        MatrixRate(dtype="bf16", rows=512, columns=192, depth=192, tflops=9.0),
    ),
    attention_rates=(
        AttentionRate(dtype="fp32", length=8, head_size=48, forward_tflops=0.01, backward_tflops=0.02),
        AttentionRate(dtype="fp32", length=64, head_size=48, forward_tflops=0.07, backward_tflops=0.05),
    ),
    layer_rates=(
        LayerRate(
            dtype="fp32", tokens=512, forward_gb_per_second=8.0, backward_gb_per_second=16.0,
            forward_block_microseconds=1.0, backward_block_microseconds=1.0,
        ),
    ),
)  # fmt: skip


def test_a_measured_shape_has_its_own_rate() -> None:
    rates = MeasuredRates.of(MEASURED, "fp32")
    assert rates.matrix_flops_per_second(512, 192, 192) == pytest.approx(1e11)
    assert rates.matrix_flops_per_second(2048, 768, 192) == pytest.approx(3e11)
    assert rates.attention_flops_per_second(64, 48) == pytest.approx((7e10, 5e10))
    assert rates.element_wise_bytes_per_second(4096) == pytest.approx((8e9, 16e9))
    assert MeasuredRates.of(Calibration(), "fp32") == MeasuredRates()


@given(st.integers(1, 10**6), st.integers(1, 10**5), st.integers(1, 10**5))
def test_other_shapes_lie_between_the_measured_ones(rows: int, columns: int, depth: int) -> None:
    rate = MeasuredRates.of(MEASURED, "fp32").matrix_flops_per_second(rows, columns, depth)
    assert rate is not None
    assert 0.99e11 <= rate <= 3.01e11


@given(st.floats(1, 1e5), st.integers(1, 512))
def test_other_lengths_lie_between_the_measured_ones(length: float, head_size: int) -> None:
    found = MeasuredRates.of(MEASURED, "fp32").attention_flops_per_second(length, head_size)
    assert found is not None
    assert 0.99e10 <= found[0] <= 7.01e10
    assert 1.99e10 <= found[1] <= 5.01e10


@pytest.mark.parametrize("name", [name for name, gpu in gpus().items() if gpu.vendor == "nvidia"])
def test_exponentials_are_sixteen_a_clock_of_each_multiprocessor(name: str) -> None:
    """The clock that makes the catalogue's fp32 rate of 64 or 128 cores a multiprocessor."""
    gpu = gpus()[name]
    assert gpu.multiprocessors is not None
    assert gpu.special_function_tera_per_second is not None
    clock_hertz = gpu.special_function_tera_per_second * 1e12 / 16 / gpu.multiprocessors
    assert 1.3e9 < clock_hertz < 2.8e9
    cores = gpu.fp32_tflops * 1e12 / 2 / clock_hertz / gpu.multiprocessors
    assert min(abs(cores - count) for count in (64, 128)) < 1
