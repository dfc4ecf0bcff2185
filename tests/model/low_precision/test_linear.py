"""Linear layers in 8 bits: gradients by hand, what they keep, and what recomputation makes of them."""

from __future__ import annotations

import copy
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tests.model.sizes import geometry, random_batch, randomise, tiny
from tests.model.test_selective import Counting
from vdsgen.model.layers.block import Block
from vdsgen.model.low_precision.layers import compute_blocks_in
from vdsgen.model.low_precision.linear import compute_in
from vdsgen.model.low_precision.product import QUANTIZED_MM
from vdsgen.model.low_precision.quantised import quantised
from vdsgen.model.objective import diffusion_loss
from vdsgen.model.pipeline import SequentialModel, layer_specs
from vdsgen.spec.linear_precision import FORMATS, EightBit, Format

KINDS: tuple[EightBit, ...] = ("int8", "fp8")
WIDE = tiny(hidden_size=32, mlp_hidden_size=64)


def rounded(matrix: Tensor, form: Format) -> Tensor:
    """What its 8 bits say, row by row."""
    found = quantised(matrix, form)
    return found.values.to(matrix.dtype) * found.scales.to(matrix.dtype)


def layer_and_input(bias: bool = True) -> tuple[nn.Linear, Tensor]:
    generator = torch.Generator().manual_seed(5)
    layer = nn.Linear(32, 48, bias=bias)
    randomise(layer)
    return layer, torch.randn(2, 7, 32, generator=generator, requires_grad=True)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("bias", [True, False])
def test_forward_and_gradients_are_those_by_hand(kind: EightBit, bias: bool) -> None:
    layer, x = layer_and_input(bias)
    compute_in(kind, layer)
    out = layer(x)
    generator = torch.Generator().manual_seed(6)
    gradient = torch.randn(out.shape, generator=generator)
    out.backward(gradient)
    forms = FORMATS[kind]
    rows, told, weight = x.detach().flatten(0, 1), gradient.flatten(0, 1), layer.weight.detach()
    expected = rounded(rows, forms.forward) @ rounded(weight, forms.forward).t()
    by_input = rounded(told, forms.gradient) @ rounded(weight.t(), forms.forward).t()
    by_weight = told.t() @ rows
    if forms.weight_gradient:
        by_weight = rounded(told.t(), forms.gradient) @ rounded(rows.t(), forms.forward).t()
    if bias:
        expected = expected + layer.bias.detach()
        assert layer.bias.grad is not None and torch.allclose(layer.bias.grad, told.sum(0))
    assert x.grad is not None and layer.weight.grad is not None
    assert torch.allclose(out.detach().flatten(0, 1), expected, rtol=1e-5, atol=1e-5)
    assert torch.allclose(x.grad.flatten(0, 1), by_input, rtol=1e-5, atol=1e-5)
    assert torch.allclose(layer.weight.grad, by_weight, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_gradients_are_near_those_of_the_plain_layer(kind: EightBit) -> None:
    layer, x = layer_and_input()
    plain, same = copy.deepcopy(layer), x.detach().clone().requires_grad_()
    compute_in(kind, layer)
    for one, given in ((layer, x), (plain, same)):
        one(given).square().sum().backward()
    pairs = [(x, same), *zip(layer.parameters(), plain.parameters(), strict=True)]
    for own, other in ((one.grad, exact.grad) for one, exact in pairs):
        assert own is not None and other is not None
        assert 1e-5 < (own - other).norm() / other.norm() < {"int8": 0.02, "fp8": 0.1}[kind]


def kept_of(layer: nn.Linear, x: Tensor) -> set[str]:
    """What a forward of the layer keeps for backward."""
    names = {x.untyped_storage()._cdata: "x", layer.weight.untyped_storage()._cdata: "weight"}
    found: set[str] = set()

    def pack(tensor: Tensor) -> Tensor:
        found.add(names[tensor.untyped_storage()._cdata])
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        layer(x)
    return found


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("weight_trains", [True, False])
@pytest.mark.parametrize("needs_gradient", [True, False])
def test_keeps_what_the_plain_layer_keeps(kind: EightBit, weight_trains: bool, needs_gradient: bool) -> None:
    """The input where the weight trains, the weight where the input needs a gradient; nothing besides."""
    layer, x = layer_and_input()
    layer.weight.requires_grad_(weight_trains)
    x.requires_grad_(needs_gradient)
    plainly = kept_of(layer, x)
    compute_in(kind, layer)
    assert kept_of(layer, x) == plainly


def test_a_frozen_layer_computes_no_gradient_of_its_weight() -> None:
    layer, x = layer_and_input()
    layer.requires_grad_(False)
    compute_in("fp8", layer)
    with Counting() as counting:
        layer(x).sum().backward()
    assert counting.runs[QUANTIZED_MM] == 2 and layer.weight.grad is None and x.grad is not None


def test_a_weight_that_was_shared_out_again_is_gathered_for_backward() -> None:
    layer, x = layer_and_input()
    compute_in("fp8", layer)
    (expected,) = torch.autograd.grad(layer(x).sum(), x)
    whole, weight, told = layer.weight.data, layer.weight, []

    def gather() -> None:
        weight.data = whole
        told.append("gathered")

    extras: Any = weight
    extras.ds_status, extras.all_gather = SimpleNamespace(name="NOT_AVAILABLE"), gather
    extras.partition = lambda: told.append("shared out")
    out = layer(x).sum()
    weight.data = torch.empty(0)
    (found,) = torch.autograd.grad(out, x)
    assert told == ["gathered", "shared out"]
    assert torch.equal(found, expected)


def network(kind: EightBit | None, interval: int = 0, plain: int = 0, selective: int = 0) -> SequentialModel:
    built = SequentialModel(
        layer_specs(WIDE, geometry(WIDE), seed=2), interval, diffusion_loss, None, plain, selective
    )
    randomise(built)
    if kind is not None:
        compute_blocks_in(kind, built)
    return built


def gradients(built: SequentialModel) -> tuple[Tensor, list[Any], Counting]:
    with Counting() as counting:
        loss = built(*random_batch(WIDE, geometry(WIDE)))
        loss.backward()
    return loss.detach(), [parameter.grad for parameter in built.parameters()], counting


@pytest.mark.parametrize("kind", KINDS)
def test_recomputation_changes_nothing_and_selective_repeats_no_product(kind: EightBit) -> None:
    loss, plainly, counted = gradients(network(kind))
    for interval, plain, selective in ((2, 0, 0), (1, 0, 6), (1, 2, 3)):
        again, found, counting = gradients(network(kind, interval, plain, selective))
        assert torch.equal(again, loss)
        for own, other in zip(found, plainly, strict=True):
            assert (own is None) == (other is None)
            assert own is None or torch.equal(own, other)
        # Of whole segments there is the embedding alone where others keep their products.
        repeats = counting.runs[QUANTIZED_MM] - counted.runs[QUANTIZED_MM]
        assert repeats == 0 if selective else repeats > 0


def test_told_are_the_linears_of_blocks_and_no_others() -> None:
    built = network("fp8")
    linears = {name: module for name, module in built.named_modules() if isinstance(module, nn.Linear)}
    told = {name for name, module in linears.items() if hasattr(module, "eight_bit")}
    blocks = {name.split(".")[0] for name, module in built.named_modules() if isinstance(module, Block)}
    assert told == {name for name in linears if name.split(".")[0] in blocks}
    assert len(told) == 4 * 10 and len(linears) > len(told)
    assert list(built.state_dict()) == list(network(None).state_dict()), "checkpoints are the same"


def test_layers_of_odd_sizes_stay_as_they_are() -> None:
    model = tiny(hidden_size=24, mlp_hidden_size=64)
    built = SequentialModel(layer_specs(model, geometry(model), seed=2), 0, diffusion_loss)
    assert compute_blocks_in("fp8", built) == []


@pytest.mark.parametrize("kind", KINDS)
def test_a_model_of_8_bits_learns_as_the_plain_one(kind: EightBit) -> None:
    def losses(built: SequentialModel) -> list[float]:
        optimizer = torch.optim.AdamW(built.parameters(), lr=3e-3)
        found = []
        for step in range(40):
            loss = built(*random_batch(WIDE, geometry(WIDE), seed=step % 2))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            found.append(float(loss.detach()))
        return found

    plain, own = losses(network(None)), losses(network(kind))
    assert plain[-1] < 0.5 * plain[0], "there is something to learn"
    assert own[0] == pytest.approx(plain[0], rel=0.1)
    assert sum(own[-5:]) == pytest.approx(sum(plain[-5:]), rel=0.15)
