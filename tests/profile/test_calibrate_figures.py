"""From seconds to figures: what a calibration says of a block is what the block took."""

from __future__ import annotations

import pytest

from tests.planner.examples import pool
from vdsgen.cost.compute import layer_times
from vdsgen.cost.rates import Rates
from vdsgen.profile.calibrate_figures import calibration_of
from vdsgen.profile.calibrate_samples import Samples
from vdsgen.profile.calibrate_shapes import (
    BATCHES,
    CHECKPOINT,
    CLIP,
    LARGE_BYTES,
    ON_PROCESSOR,
    SMALL_BYTES,
    attention_shapes,
    block_type,
    product_shapes,
)
from vdsgen.spec.calibration import middle
from vdsgen.spec.lab import Gpu

TOKENS = CLIP.frames * CLIP.patches


def samples() -> Samples:
    """A processor of round figures: products at 0.1 TFLOP/s, attention at 0.05, blocks slower than both."""
    found: Samples = {"large fp32": [0.012, 0.0125, 0.013]}
    for m, n, k in product_shapes(ON_PROCESSOR):
        found[f"product fp32 {m} {n} {k}"] = [2 * m * n * k / 1e11]
    for sequences, length, size in attention_shapes(ON_PROCESSOR):
        flops = 4 * sequences * length**2 * size
        found[f"attention fp32 {sequences} {length} {size} forward"] = [flops / 5e10]
        found[f"attention fp32 {sequences} {length} {size} backward"] = [2.5 * flops / 4e10]
    for batch in BATCHES:
        found[f"block fp32 {batch * TOKENS} forward"] = [0.012 * batch]
        found[f"block fp32 {batch * TOKENS} both"] = [0.034 * batch]
    found |= {
        "speck both": [188 * 8e-6], "stream": [0.005], "adamw": [0.002],
        "alone forward": [0.01], "alone both": [0.0306], "crowded both": [0.0374],
    }  # fmt: skip
    for name, seconds in (("all_reduce", 6e-3), ("all_gather", 3e-3), ("reduce_scatter", 4e-3)):
        found |= {f"{name} large": [seconds + 1e-3], f"{name} small": [1e-3]}
    return found | {"send large": [0.011], "send small": [0.001]}


def test_ranks_that_save_at_once_share_the_rate() -> None:
    """Three ranks of 128 MiB in half a second."""
    saving = samples() | {CHECKPOINT: [0.5]}
    calibration = calibration_of([saving] * 3, ranks=3, busy_ranks=2, on_gpu=False)
    assert calibration.checkpoint_write_gb_per_second is not None
    assert middle(calibration.checkpoint_write_gb_per_second) == pytest.approx(0.8053, rel=1e-3)


def test_the_block_comes_out_as_it_was_measured() -> None:
    """The cost model, given the calibration, times the very block that was measured."""
    calibration = calibration_of([samples(), samples()], ranks=4, busy_ranks=2, on_gpu=False)
    gpu = Gpu(fp32_tflops=9.0, memory_bandwidth_gb_per_second=20.0)
    rates = Rates.of(pool(calibration=calibration).model_copy(update={"gpu": gpu}), "fp32")
    layer = block_type()
    for batch in BATCHES:
        times = layer_times(layer.single, batch, CLIP, rates, layer)
        assert times.forward_seconds == pytest.approx(0.012 * batch, rel=2e-3)
        assert times.backward_seconds == pytest.approx(0.022 * batch, rel=2e-3)


def test_links_are_what_a_large_message_takes_longer_than_a_small_one() -> None:
    calibration = calibration_of([samples()], ranks=4, busy_ranks=2, on_gpu=False)
    extra = LARGE_BYTES - SMALL_BYTES
    assert calibration.link_bandwidth_gb_per_second is not None
    assert middle(calibration.link_bandwidth_gb_per_second) == pytest.approx(extra / 0.01 / 1e9, rel=1e-3)
    assert calibration.all_reduce is not None
    assert middle(calibration.all_reduce.bandwidth_gb_per_second) == pytest.approx(
        1.5 * extra / 6e-3 / 1e9, rel=1e-3
    )
    assert middle(calibration.all_reduce.latency_microseconds) == pytest.approx(1000.0)


def test_figures_have_quartiles() -> None:
    calibration = calibration_of([samples()], ranks=1, busy_ranks=1, on_gpu=False)
    rows, columns, depth = ON_PROCESSOR.large_product
    rate = calibration.fp32_matmul_tflops
    assert rate is not None
    assert not isinstance(rate, float)
    assert rate.median == pytest.approx(2e-12 * rows * columns * depth / 0.0125, rel=1e-3)
    assert rate.low < rate.median < rate.high
    assert calibration.all_reduce is None
    assert calibration.alone_speedup is not None
    assert middle(calibration.alone_speedup) == pytest.approx(0.034 / 0.0306, rel=1e-3)
    assert calibration.crowded_slowdown is not None
    assert middle(calibration.crowded_slowdown) == pytest.approx(0.0374 / 0.034, rel=1e-3)


def test_noise_never_makes_a_rate_negative() -> None:
    noisy = samples() | {f"block fp32 {batch * TOKENS} forward": [1e-6] for batch in BATCHES}
    calibration = calibration_of([noisy], ranks=1, busy_ranks=1, on_gpu=False)
    assert all(middle(rate.forward_gb_per_second) > 0 for rate in calibration.layer_rates)
