"""Low-rank adapters on frozen layers: what trains, what it starts from, and that diffusers loads it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, inject_adapter_in_model, set_peft_model_state_dict
from safetensors.torch import load_file

from tests.model.families.stages import SEED, built, in_stages, unwrapped, whole_state
from tests.model.families.tiny import TINY, Tiny
from vdsgen.errors import VdsgenError
from vdsgen.model.families.layer_specs import DiffusersLayer, diffusers_layer_specs
from vdsgen.model.families.registry import family_of
from vdsgen.model.families.skeleton import model_class
from vdsgen.spec.training import Lora

WAN = TINY["wan"]

ADAPTERS = Lora(rank=3)


def adapted(tiny: Tiny, adapters: Lora = ADAPTERS) -> list[DiffusersLayer]:
    return [spec.build() for spec in diffusers_layer_specs(tiny, SEED, adapters)]


def changing(layers: list[DiffusersLayer]) -> list[DiffusersLayer]:
    """What starts at zero is drawn: the adapters change something."""
    generator = torch.Generator().manual_seed(8)
    for layer in layers:
        for name, parameter in layer.named_parameters():
            if ".lora_B." in name:
                parameter.data.normal_(0, 0.1, generator=generator)
    return layers


def adapter_state(layers: list[DiffusersLayer]) -> dict[str, torch.Tensor]:
    return {name: layer.get_parameter(own) for layer in layers for own, name in layer.adapter_names.items()}


@pytest.mark.parametrize("name", ["wan", "mochi", "svd"])
def test_only_adapters_train_and_their_gradients_are_the_unwrapped_models(name: str) -> None:
    """The unwrapped model gets them through diffusers, under the names that layers give; diffusers has no way
    to load any into SVD's U-Net, peft has."""
    tiny = TINY[name]
    layers = changing(adapted(tiny))
    model: Any = unwrapped(tiny, layers)
    ours = adapter_state(layers)
    prefix = family_of(tiny.class_name).adapter_prefix
    state = {key: x.detach() for key, x in ours.items()}
    model.requires_grad_(False)
    if name == "svd":
        config = LoraConfig(r=ADAPTERS.rank, lora_alpha=ADAPTERS.rank, target_modules=list(ADAPTERS.targets))
        inject_adapter_in_model(config, model, "default_0", state_dict=state)
        set_peft_model_state_dict(model, state, "default_0")
    else:
        model.load_lora_adapter({f"{prefix}.{key}": x for key, x in state.items()}, prefix=prefix)
    theirs = {n.replace(".default_0.", "."): p for n, p in model.named_parameters() if ".lora_" in n}
    assert theirs.keys() == ours.keys()
    for parameter in theirs.values():
        parameter.requires_grad_(True)
    inputs = tiny.inputs()
    expected = tiny.forward(model, inputs)
    gradient = torch.randn(expected.shape, generator=torch.Generator().manual_seed(1))
    torch.autograd.backward(expected, gradient)
    noise = 1e-6 * max(float(p.grad.abs().max()) for p in theirs.values() if p.grad is not None)
    for stages in (1, 2, 4):
        for layer in layers:
            layer.zero_grad()
        prediction = in_stages(layers, stages, inputs, gradient)
        torch.testing.assert_close(prediction, expected, rtol=1e-4, atol=1e-5)
        trained = {n for layer in layers for n, p in layer.named_parameters() if p.grad is not None}
        assert trained and all(".lora_" in n for n in trained)
        for key, parameter in theirs.items():
            torch.testing.assert_close(ours[key].grad, parameter.grad, rtol=1e-3, atol=noise, msg=key)


def test_fresh_adapters_change_nothing_and_follow_from_seed_and_layer_alone() -> None:
    plain, layers = built(WAN), adapted(WAN)
    inputs = WAN.inputs()
    assert torch.equal(in_stages(layers, 2, inputs, None), in_stages(plain, 2, inputs, None))
    state, weights = adapter_state(layers), whole_state(plain)
    assert whole_state(layers).keys() == weights.keys()
    assert all(torch.equal(x, weights[name]) for name, x in whole_state(layers).items())
    alone = diffusers_layer_specs(WAN, SEED, ADAPTERS)[2].build()
    for own, name in alone.adapter_names.items():
        drawn = alone.get_parameter(own)
        assert torch.equal(drawn, state[name])
        assert bool(drawn.any()) == name.endswith("lora_A.weight")
    first, second = (state[f"blocks.{i}.attn1.to_q.lora_A.weight"] for i in (0, 1))
    assert not torch.equal(first, second)


def test_targets_alpha_and_rank_are_as_asked() -> None:
    layers = adapted(WAN, Lora(rank=2, alpha=8, targets=("ffn.net.2", "to_q")))
    state = adapter_state(layers)
    assert len(state) == 2 * 4 * (1 + 2)  # a block has one such linear layer, and two queries
    assert state["blocks.3.ffn.net.2.lora_A.weight"].shape == (2, 40)
    assert layers[1].layer.get_submodule("block.attn1.to_q").scaling == {"default": 4}


def test_targets_that_no_layer_has_are_refused() -> None:
    with pytest.raises(VdsgenError, match="no linear layer of WanTransformer3DModel is called to_w"):
        adapted(WAN, Lora(targets=("to_q", "to_w")))


def test_frozen_weights_of_a_folder_are_read_beside_adapters(tmp_path: Path) -> None:
    model_class(WAN.class_name).from_config(dict(WAN.config)).save_pretrained(tmp_path)
    layers = adapted(replace(WAN, weights=str(tmp_path)))
    stored = load_file(tmp_path / "diffusion_pytorch_model.safetensors")
    assert all(torch.equal(x, stored[name]) for name, x in whole_state(layers).items())
    assert all(
        not x.requires_grad for x in (p for b in layers for n, p in b.named_parameters() if "lora" not in n)
    )
