"""Layers in stages compute what diffusers' unwrapped model computes, gradients included."""

from __future__ import annotations

import pytest
import torch

from tests.model.families.stages import built, in_stages, unwrapped
from tests.model.families.tiny import TINY


@pytest.mark.parametrize("name", TINY)
def test_outputs_and_all_gradients_are_the_unwrapped_models(name: str) -> None:
    tiny = TINY[name]
    layers, inputs = built(tiny), tiny.inputs()
    model = unwrapped(tiny, layers)
    expected = tiny.forward(model, inputs)
    generator = torch.Generator().manual_seed(1)
    gradient = torch.randn(expected.shape, generator=generator)
    torch.autograd.backward(expected, gradient)
    wanted = {name: p.grad for name, p in model.named_parameters()}
    # Some gradients are nothing but rounding: attention to one token, biases before a norm of one channel.
    noise = 1e-7 * max(float(of_model.abs().max()) for of_model in wanted.values() if of_model is not None)
    for stages in (1, 2, 4):
        for layer in layers:
            layer.zero_grad()
        prediction = in_stages(layers, stages, inputs, gradient)
        assert prediction.dtype == torch.float32
        torch.testing.assert_close(prediction, expected, rtol=1e-5, atol=1e-6)
        found = {
            layer.diffusers_names[own]: p.grad for layer in layers for own, p in layer.named_parameters()
        }
        assert found.keys() == wanted.keys()
        for parameter, of_model in wanted.items():
            ours = found[parameter]
            if of_model is None:
                assert ours is None, parameter
                continue
            assert ours is not None, parameter
            atol = 1e-5 * float(of_model.abs().max()) + noise
            torch.testing.assert_close(ours, of_model, rtol=1e-4, atol=atol, msg=parameter)
