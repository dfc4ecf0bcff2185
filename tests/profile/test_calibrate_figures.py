"""From seconds to figures: what a calibration says of a block is what the block took."""

from __future__ import annotations

import pytest

from tests.planner.examples import pool
from vdsgen.cost.compute import layer_times
from vdsgen.cost.rates import Rates
from vdsgen.profile.calibrate_figures import calibration_of
from vdsgen.profile.calibrate_samples import Device, Samples, sample
from vdsgen.profile.calibrate_shapes import (
    BATCHES,
    CHECKPOINT,
    CLIP,
    LARGE_BYTES,
    ON_GPU,
    ON_PROCESSOR,
    SMALL_BYTES,
    Sizes,
    attention_shapes,
    block_type,
    product_shapes,
)
from vdsgen.spec.calibration import middle
from vdsgen.spec.lab import Gpu

TOKENS = CLIP.frames * CLIP.patches
HOST: Samples = {"host up": [0.005], "host memory": [0.01]}
BLOCK_SECONDS = {"vdt-demo": 0.012, "vdt-1.5b": 4.0}
"""Of a clip: more than its products and attentions take."""


def samples(sizes: Sizes = ON_PROCESSOR) -> Samples:
    """A processor of round figures: products at 0.1 TFLOP/s, attention at 0.05, blocks slower than both."""
    found: Samples = {"large fp32": [0.012, 0.0125, 0.013]}
    tokens = sizes.clip.frames * sizes.clip.patches
    for m, n, k in product_shapes(sizes):
        found[f"product fp32 {m} {n} {k}"] = [2 * m * n * k / 1e11]
    for sequences, length, size in attention_shapes(sizes):
        flops = 4 * sequences * length**2 * size
        found[f"attention fp32 {sequences} {length} {size} forward"] = [flops / 5e10]
        found[f"attention fp32 {sequences} {length} {size} backward"] = [2.5 * flops / 4e10]
    for batch in sizes.batches:
        found[f"block fp32 {batch * tokens} forward"] = [BLOCK_SECONDS[sizes.model] * batch]
        found[f"block fp32 {batch * tokens} both"] = [2.9 * BLOCK_SECONDS[sizes.model] * batch]
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
        assert times.backward_seconds == pytest.approx(1.9 * 0.012 * batch, rel=2e-3)


def test_on_a_gpu_a_large_models_block_comes_out_as_it_was_measured() -> None:
    """Its attentions are each looked up once, though others of the same length are measured besides."""
    calibration = calibration_of([samples(ON_GPU) | HOST], ranks=1, busy_ranks=1, on_gpu=True)
    gpu = Gpu(memory_gib=80.0, fp32_tflops=9.0, memory_bandwidth_gb_per_second=20.0)
    rates = Rates.of(pool(calibration=calibration).model_copy(update={"gpu": gpu}), "fp32")
    layer = block_type(ON_GPU.model)
    for batch in ON_GPU.batches:
        times = layer_times(layer.single, batch, ON_GPU.clip, rates, layer)
        # Attention to the text, whose shape is not measured, is in the rest of the block and counted besides.
        assert times.forward_seconds == pytest.approx(4.0 * batch, rel=0.02)
        assert times.backward_seconds == pytest.approx(1.9 * 4.0 * batch, rel=0.02)
    assert len({(rate.length, rate.head_size) for rate in calibration.attention_rates}) == len(
        calibration.attention_rates
    )


def test_what_is_short_is_called_several_times_in_a_row() -> None:
    """So that waiting for the GPU is no part of it: here 2 ms of waiting for calls of half a millisecond."""
    clock, called = [0.0], [0]

    def call() -> None:
        clock[0] += 0.0005
        called[0] += 1

    def wait() -> None:
        clock[0] += 0.002

    device = Device("gpu", wait, lambda: clock[0], least_seconds=0.05)
    (once,) = sample({"call": call}, 0.0, device, least_rounds=1)["call"]
    assert called[0] == 1 + 1 + 20
    assert once == pytest.approx(0.0005 + 0.002 / 20)


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
    assert middle(calibration.alone_speedup) == pytest.approx(2.9 * 0.012 / 0.0306, rel=1e-3)
    assert calibration.crowded_slowdown is not None
    assert middle(calibration.crowded_slowdown) == pytest.approx(0.0374 / (2.9 * 0.012), rel=1e-3)


def test_noise_never_makes_a_rate_negative() -> None:
    noisy = samples() | {f"block fp32 {batch * TOKENS} forward": [1e-6] for batch in BATCHES}
    calibration = calibration_of([noisy], ranks=1, busy_ranks=1, on_gpu=False)
    assert all(middle(rate.forward_gb_per_second) > 0 for rate in calibration.layer_rates)
