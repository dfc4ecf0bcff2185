"""Costs of linear layers in 8 bits: held against traces of the layers that the trainer makes, and by hand."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from tests.planner.examples import pool
from vdsgen.catalog.load import gpus, models
from vdsgen.catalog.profiles import PRETRAINED_FOLDER, profile_for
from vdsgen.cost.compute import layer_times
from vdsgen.cost.eight_bit import How, is_in_8_bits, with_eight_bit_linears
from vdsgen.cost.rates import Rates, eight_bit_speedups
from vdsgen.model.low_precision.linear import compute_in
from vdsgen.profile.trace import empty_inputs, empty_layer, empty_tensors, traced, traced_checkpointed
from vdsgen.spec.architecture import Geometry, Vdt
from vdsgen.spec.linear_precision import EightBit
from vdsgen.spec.pretrained import PretrainedProfile
from vdsgen.spec.profile import LayerCosts, ModelProfile

MODEL = models()["vdt-demo"].sizes
WIDE = models()["vdt-14b"].sizes
GEOMETRY = Geometry(frames=8, patches=256, text_tokens=0, latent_height=16, latent_width=16)
BATCH = 3
KINDS: tuple[EightBit, ...] = ("fp8", "int8")
THERE = {"half": None, "single": None}


@pytest.fixture(scope="module")
def profile() -> ModelProfile:
    return known(MODEL)


def known(model: Vdt) -> ModelProfile:
    found = profile_for(model)
    assert found is not None
    return found


def stored(name: str) -> PretrainedProfile:
    return PretrainedProfile.model_validate_json((PRETRAINED_FOLDER / f"{name}.json").read_bytes())


def rates_of(gpu: str) -> Rates:
    return Rates.of(pool().model_copy(update={"gpu": gpus()[gpu].figures}), "bf16")


def block_of(profile: ModelProfile, kind: EightBit, **emulated: int | None) -> LayerCosts:
    return with_eight_bit_linears(profile, How(kind, THERE | emulated)).layer_types["block"].half


@pytest.mark.parametrize("kind", KINDS)
def test_peaks_are_those_of_the_trainers_layers_or_a_little_more(
    profile: ModelProfile, kind: EightBit
) -> None:
    with empty_tensors():
        layer = empty_layer(MODEL, GEOMETRY, "block", torch.bfloat16)
        for module in layer.modules():
            if isinstance(module, torch.nn.Linear):
                compute_in(kind, module)
        inputs = empty_inputs(MODEL, BATCH, GEOMETRY, "block", torch.bfloat16)
        plain = traced(layer, inputs)
        whole = traced_checkpointed(layer, inputs)
        kept = traced_checkpointed(layer, inputs, selective=True)
    costs, at = block_of(profile, kind), (BATCH, GEOMETRY)
    loose = {"fp8": 0.15, "int8": 0.35}[
        kind
    ]  # sums of int8 take four bytes, and four more where they are scaled
    assert costs.selective is not None and costs.checkpointed is not None
    assert costs.saved_bytes.at(*at) == plain.saved_bytes, "nothing more is kept"
    assert costs.selective.saved_bytes.at(*at) == kept.saved_bytes
    assert costs.matmul_flops.at(*at) == plain.matmul_flops
    assert 2 * costs.matmul_flops.at(*at) == plain.backward_matmul_flops
    for planned, moments in (
        (costs.forward_transient_bytes, plain.forward_temporaries),
        (costs.backward_transient_bytes, plain.backward_temporaries),
        (costs.checkpointed.peak_bytes, whole.moments),
        (costs.selective.peak_bytes, kept.moments),
        (costs.selective.forward_transient_bytes, kept.forward_temporaries),
    ):
        assert max(moments) <= planned.at(*at) <= max(moments) + loose * plain.saved_bytes


def test_what_is_exact_stays_as_it_is(profile: ModelProfile) -> None:
    changed = with_eight_bit_linears(profile, How("fp8", THERE))
    for name in ("embed", "final"):
        assert changed.layer_types[name] == profile.layer_types[name]
    block, plain = changed.layer_types["block"], profile.layer_types["block"]
    assert [product.precision for product in block.products] == ["fp8"] * len(plain.products)
    assert all(is_in_8_bits(product) for product in plain.products), "a bundled block has no other"
    assert block.parameter_shapes == plain.parameter_shapes
    assert '"precision"' not in plain.model_dump_json(), "profiles on disk are written as they were"


@pytest.mark.parametrize("kind", KINDS)
def test_operands_are_read_twice_and_written_once(profile: ModelProfile, kind: EightBit) -> None:
    """bf16 operands take 5 bytes of traffic an element in fp8; int8 and its results go by way of fp32."""
    plain = profile.layer_types["block"]
    costs, at = block_of(profile, kind), (BATCH, GEOMETRY)
    operand, result = {"fp8": (5, 0), "int8": (13, 14)}[kind]
    forward = backward = 0
    for product in plain.products:
        m, n, k = product.rows.at(*at), product.columns, product.depth
        forward += product.count * (operand * (m * k + n * k) + result * m * n)
        backward += product.count * (operand * (m * n + n * k) + result * m * k)
        backward += product.count * operand * (m * n + m * k) if kind == "fp8" else 0
    assert costs.forward_traffic_bytes.at(*at) - plain.half.forward_traffic_bytes.at(*at) == forward
    assert costs.backward_traffic_bytes.at(*at) - plain.half.backward_traffic_bytes.at(*at) == backward


def test_emulation_holds_and_moves_more(profile: ModelProfile) -> None:
    there, emulated, at = block_of(profile, "fp8"), block_of(profile, "fp8", half=2), (BATCH, GEOMETRY)
    assert emulated.forward_transient_bytes.at(*at) > there.forward_transient_bytes.at(*at)
    assert emulated.forward_traffic_bytes.at(*at) > there.forward_traffic_bytes.at(*at)


@pytest.mark.parametrize(
    ("gpu", "dtype", "expected"),
    [
        ("h100-80gb-sxm", "bf16", {"fp8": 2.0, "int8": 2.0}),
        ("h100-80gb-sxm", "fp16", {"int8": 2.0}),
        ("rtx-4090", "bf16", {"fp8": 2.0, "int8": 4.0}),
        ("rtx-3090", "bf16", {"int8": 4.0}),
        ("a100-80gb-sxm", "bf16", {"int8": 2.0}),
        ("t4", "fp16", {"int8": 2.0}),
        ("v100-32gb-sxm2", "fp16", {}),
        ("mi300x", "bf16", {}),
        ("cpu", "bf16", {}),
    ],
)
def test_speedups_are_of_what_the_gpu_has(gpu: str, dtype: Any, expected: dict[str, float]) -> None:
    assert eight_bit_speedups(gpus()[gpu].figures, dtype) == pytest.approx(expected, rel=0.01)


def test_large_products_take_half_the_time_and_emulated_ones_as_long() -> None:
    rates = rates_of("h100-80gb-sxm")
    exact = rates.product_seconds(65536, 8192, 8192, 2)
    assert rates.product_seconds(65536, 8192, 8192, 2, "fp8") == pytest.approx(exact / 2, rel=0.01)
    older = rates_of("a100-80gb-sxm")
    exact = older.product_seconds(65536, 8192, 8192, 2)
    assert older.product_seconds(65536, 8192, 8192, 2, "fp8") == exact


@pytest.mark.parametrize(("gpu", "faster"), [("h100-80gb-sxm", True), ("a100-80gb-sxm", False)])
def test_a_wide_layer_is_faster_where_the_gpu_has_fp8_alone(gpu: str, faster: bool) -> None:
    profile, rates = known(WIDE), rates_of(gpu)
    how = How("fp8", THERE if faster else THERE | {"half": 2})
    eight_bit = with_eight_bit_linears(profile, how).layer_types["block"]
    exact = profile.layer_types["block"]
    large = Geometry(frames=20, patches=1560, text_tokens=512, latent_height=60, latent_width=104)
    before, after = (layer_times(layer.half, 1, large, rates, layer) for layer in (exact, eight_bit))
    assert (after.forward_seconds < before.forward_seconds) == faster
    assert (after.backward_seconds < before.backward_seconds) == faster
    assert after.model_flops == before.model_flops


@pytest.mark.parametrize("method", ["full", "lora"])
def test_layers_without_products_by_shape_are_known_by_their_weights(method: str) -> None:
    """Wan's: FLOPs over tokens at twice the rate, by the weight too where it trains."""
    entry = stored("wan2.1-t2v-1.3b")
    profile = entry.full if method == "full" else entry.with_adapters(16)
    plain = profile.layer_types["block"]
    assert not plain.products, "or this tests nothing"
    changed = with_eight_bit_linears(profile, How("fp8", THERE)).layer_types["block"]
    where = Geometry(frames=21, patches=1560, text_tokens=512, latent_height=60, latent_width=104)
    at = (1, where)
    eight_bit = changed.half.eight_bit
    assert eight_bit is not None
    flops = eight_bit.matmul_flops.at(*at)
    assert 0.9 * plain.half.matmul_flops.at(*at) < flops <= plain.half.matmul_flops.at(*at)
    rates = rates_of("h100-80gb-sxm")
    untimed = changed.half.model_copy(
        update={
            "forward_traffic_bytes": plain.half.forward_traffic_bytes,
            "backward_traffic_bytes": plain.half.backward_traffic_bytes,
        }
    )
    exact, faster = (layer_times(costs, *at, rates) for costs in (plain.half, untimed))
    spared = flops / 2 / rates.matmul_flops_per_second / rates.training_fraction
    assert exact.forward_seconds - faster.forward_seconds == pytest.approx(spared)
    backward = exact.backward_seconds - faster.backward_seconds
    assert backward == pytest.approx(spared * (2 if method == "full" else 1))
    # 5 bytes for each operand's element.
    tokens = 21 * 1560
    added = changed.half.forward_traffic_bytes.at(*at) - plain.half.forward_traffic_bytes.at(*at)
    assert 5 * tokens * 8 * 1536 < added < 5 * tokens * 20 * 1536
    assert changed.half.forward_transient_bytes.at(*at) > plain.half.forward_transient_bytes.at(*at)
