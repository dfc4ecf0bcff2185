"""Rates and layer times: figures that can be checked by hand."""

from __future__ import annotations

from statistics import median

import pytest

from tests.cost.test_communication import settings
from tests.planner.examples import experiment, layer_costs, pool
from vdsgen.cost.compute import (
    accumulation_seconds,
    layer_times,
    optimizer_seconds,
)
from vdsgen.cost.rates import ATTENTION_EFFICIENCY, BANDWIDTH_EFFICIENCY, MATMUL_EFFICIENCY, Rates
from vdsgen.spec.architecture import Vdt
from vdsgen.spec.calibration import Calibration
from vdsgen.spec.experiment import geometry_of
from vdsgen.spec.lab import Gpu

RATES = Rates(
    matmul_flops_per_second=1e12,
    attention_flops_per_second=5e11,
    bytes_per_second=1e11,
    peak_flops_per_second=2e12,
)


def test_efficiencies_are_the_medians_of_the_published_rows() -> None:
    matmul = [39.79, 46.44, 49.52, 40.31, 52.50, 73.74, 74.76, 59.57]
    attention = [42.24, 41.25, 38.00, 38.41, 35.71, 68.80]
    assert pytest.approx(median(matmul) / 100, abs=0.005) == MATMUL_EFFICIENCY
    assert pytest.approx(median(attention) / 100, abs=0.005) == ATTENTION_EFFICIENCY
    assert pytest.approx(2903 / 3350, abs=0.0005) == BANDWIDTH_EFFICIENCY


def test_rates_are_peaks_times_efficiencies() -> None:
    rates = Rates.of(pool(), "bf16")
    assert rates.matmul_flops_per_second == pytest.approx(120e12 * MATMUL_EFFICIENCY)
    assert rates.bytes_per_second == pytest.approx(900e9 * BANDWIDTH_EFFICIENCY)
    assert rates.peak_flops_per_second == 120e12


def test_measured_rates_replace_estimates() -> None:
    calibration = Calibration(bf16_matmul_tflops=80.0, memory_bandwidth_gb_per_second=700.0)
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


def test_a_precision_that_the_gpu_lacks_is_an_error() -> None:
    with pytest.raises(ValueError, match="bf16"):
        Rates.of(pool(bf16=False), "bf16")


def test_layer_times_add_up() -> None:
    model = experiment(frames=2, size=32)
    assert isinstance(model.model, Vdt)
    geometry = geometry_of(model.data, model.model)
    tokens = geometry.frames * geometry.patches
    costs = layer_costs(1000, 64, 2, is_block=True)
    times = layer_times(costs, 3, geometry, RATES)
    matmul = 2 * 1000 * 3 * tokens
    attention = 4 * 64 * 3 * tokens * (geometry.patches + geometry.frames)
    forward = matmul / 1e12 + attention / 5e11 + 30 * 64 * 2 * 3 * tokens / 1e11
    backward = 2 * matmul / 1e12 + 2.5 * attention / 5e11 + 60 * 64 * 2 * 3 * tokens / 1e11
    assert times.forward_seconds == pytest.approx(forward)
    assert times.backward_seconds == pytest.approx(backward)
    assert times.model_flops == pytest.approx(3 * matmul + 3.5 * attention)


def test_accumulation_is_free_only_for_a_single_micro_batch_in_the_models_dtype() -> None:
    one = settings(1, 4, gradient_accumulation_steps=1, gradient_accumulation_dtype="bf16")
    assert accumulation_seconds(1000, one, RATES) == 0.0
    # Read 2 + 4 bytes, write 4.
    assert accumulation_seconds(1000, settings(1, 4), RATES) == pytest.approx(1000 * 10 / 1e11)


def test_optimizer_traffic_by_precision() -> None:
    fp32 = settings(1, 4, dtype="fp32")
    assert optimizer_seconds(1000, fp32, RATES) == pytest.approx(1000 * 40 / 1e11)
    assert optimizer_seconds(1000, settings(1, 4), RATES) == pytest.approx(1000 * 46 / 1e11)
    bf16_sums = settings(1, 4, gradient_accumulation_dtype="bf16")
    assert optimizer_seconds(1000, bf16_sums, RATES) == pytest.approx(1000 * 50 / 1e11)
