"""Linear layers in 8 bits in diffusers' models: which they are, and that the model computes what it did."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tests.model.families.tiny import TINY
from vdsgen.model.families.layer_specs import diffusers_layer_specs
from vdsgen.model.low_precision import layers as choosing
from vdsgen.model.low_precision.layers import ENDS, compute_blocks_in
from vdsgen.spec.training import Lora

FAMILIES = ("wan", "cogvideox", "ltx", "hunyuan video", "mochi", "latte", "svd")


@pytest.fixture(autouse=True)
def _of_any_size(monkeypatch: pytest.MonkeyPatch) -> None:
    """Test models are too narrow for multiples of 16."""
    monkeypatch.setattr(choosing, "takes", lambda *_: True)


def built(name: str, adapters: Lora | None = None) -> nn.ModuleList:
    tiny = TINY[name]
    described: Any = SimpleNamespace(class_name=tiny.class_name, config=tiny.config, weights=None)
    return nn.ModuleList([spec.build() for spec in diffusers_layer_specs(described, 0, adapters)])


def linears(model: nn.ModuleList) -> dict[str, nn.Linear]:
    """Of blocks."""
    return {
        name: module
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear) and model[int(name.split(".")[0])].kind not in ENDS
    }


def rows_seen(model: nn.ModuleList, inputs: tuple[Tensor, ...]) -> tuple[Tensor, dict[str, int]]:
    """The prediction, and over how many rows each linear layer of a block ran."""
    rows: dict[str, int] = {}
    hooks = [
        module.register_forward_pre_hook(
            lambda _, given, name=name: rows.__setitem__(name, given[0].shape[:-1].numel())
        )
        for name, module in linears(model).items()
    ]
    state: Any = inputs
    with torch.no_grad():
        for layer in model:
            state = layer(state)
    for hook in hooks:
        hook.remove()
    return state, rows


@pytest.mark.parametrize("name", FAMILIES)
def test_told_are_those_over_tokens_and_the_model_stays_what_it_is(name: str) -> None:
    model, inputs = built(name), TINY[name].inputs()
    names = list(model.state_dict())
    plain, rows = rows_seen(model, inputs)
    told = compute_blocks_in("fp8", model)
    left = linears(model).keys() - set(told)
    samples, frames = inputs[0].shape[0], inputs[0].shape[2]
    assert told and all(rows[one] <= samples * frames for one in left), "a row a sample, or a frame"
    few = [one for one in told if rows[one] <= samples]
    assert not few, "modulation stays exact"
    found, _ = rows_seen(model, inputs)
    assert list(model.state_dict()) == names
    assert not torch.equal(found, plain), "8 bits are there"
    assert (found - plain).norm() / plain.norm() < 0.1


def test_adapters_stay_exact_and_their_frozen_layers_do_not() -> None:
    model = built("wan", Lora())
    told = compute_blocks_in("fp8", model)
    assert any(one.endswith("to_q.base_layer") for one in told)
    assert not any("lora" in one for one in told)
    state: Any = TINY["wan"].inputs()
    for layer in model:
        state = layer(state)
    state.square().sum().backward()
    trained = {one for one, parameter in model.named_parameters() if parameter.grad is not None}
    assert trained and all("lora" in one for one in trained)
