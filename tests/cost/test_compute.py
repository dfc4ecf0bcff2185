"""Rates and layer times: figures that can be checked by hand."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from tests.cost.test_communication import settings
from tests.planner.examples import experiment, layer_costs, pool
from vdsgen.catalog.load import gpus, models
from vdsgen.catalog.profiles import profile_for
from vdsgen.cost.compute import (
    accumulation_seconds,
    layer_times,
    optimizer_seconds,
)
from vdsgen.cost.rates import Rates
from vdsgen.spec.architecture import Geometry, Vdt
from vdsgen.spec.geometry import geometry_of
from vdsgen.spec.profile import LayerType

RATES = Rates(
    matmul_flops_per_second=1e12,
    attention_flops_per_second=5e11,
    bytes_per_second=1e11,
    peak_flops_per_second=2e12,
)


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


BLOCK = models()["vdt-1.5b"].sizes
CLIPS = Geometry(frames=8, patches=256, text_tokens=77, latent_height=32, latent_width=32)


def block() -> LayerType:
    profile = profile_for(BLOCK)
    assert profile is not None
    return profile.layer_types["block"]


def gpu_rates(name: str = "rtx-3090") -> Rates:
    return Rates.of(pool().model_copy(update={"gpu": gpus()[name].figures}), "fp16")


def test_shapes_account_for_every_flop() -> None:
    """What the products and attentions do not cover would be timed as one large product."""
    layer = block()
    products = sum(p.count * 2 * p.rows.at(3, CLIPS) * p.columns * p.depth for p in layer.products)
    attentions = sum(a.count * a.flops.at(3, CLIPS) for a in layer.attentions)
    assert products == layer.half.matmul_flops.at(3, CLIPS)
    assert attentions == layer.half.attention_flops.at(3, CLIPS)


def test_shapes_make_a_layer_slower_than_large_products_would_be() -> None:
    layer, rates = block(), gpu_rates()
    plain = layer_times(layer.half, 1, CLIPS, rates)
    shaped = layer_times(layer.half, 1, CLIPS, rates, layer)
    assert plain.forward_seconds < shaped.forward_seconds < 3 * plain.forward_seconds
    assert shaped.model_flops == plain.model_flops


def test_kernels_cannot_be_launched_faster_than_they_are_dispatched() -> None:
    layer = block()
    tiny = CLIPS._replace(frames=4, patches=2)
    rates = gpu_rates("h100-80gb-sxm")
    times = layer_times(layer.half, 1, tiny, rates, layer)
    assert times.forward_seconds == pytest.approx(layer.forward_kernels * rates.kernel_seconds)
    assert times.backward_seconds == pytest.approx(layer.backward_kernels * rates.kernel_seconds)


def test_a_processor_dispatches_and_computes_in_turn() -> None:
    layer = block()
    lazy = RATES._replace(dispatch_adds_up=True)
    slower = lazy._replace(kernel_seconds=1e-3)
    quick, slow = (layer_times(layer.half, 1, CLIPS, rates, layer) for rates in (lazy, slower))
    added = slow.forward_seconds - quick.forward_seconds
    assert added == pytest.approx(layer.forward_kernels * 1e-3)


@given(
    st.integers(1, 16),
    st.integers(2, 40),
    st.integers(2, 600),
    st.sampled_from(["t4", "rtx-3090", "a100-80gb-sxm"]),
)
@hypothesis_settings(deadline=None, max_examples=40)
def test_more_work_never_takes_less_time(batch: int, frames: int, patches: int, name: str) -> None:
    layer, rates = block(), gpu_rates(name)
    small = CLIPS._replace(frames=frames, patches=patches)
    times = layer_times(layer.half, batch, small, rates, layer)
    for more in (
        layer_times(layer.half, batch + 1, small, rates, layer),
        layer_times(layer.half, batch, small, rates._replace(matmul_flops_per_second=1e13), layer),
        layer_times(layer.half, batch, small, rates._replace(bytes_per_second=1e11), layer),
    ):
        assert more.forward_seconds >= times.forward_seconds * (1 - 1e-9)
        assert more.backward_seconds >= times.backward_seconds * (1 - 1e-9)
