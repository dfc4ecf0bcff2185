"""Runs layers in stages within one process, handing tensors on as DeepSpeed's pipeline engine does."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

from tests.model.families.tiny import Inputs, Tiny
from vdsgen.model.families.layer_specs import DiffusersLayer, diffusers_layer_specs
from vdsgen.model.families.skeleton import model_class

SEED = 5


def built(tiny: Tiny, seed: int = SEED) -> list[DiffusersLayer]:
    return [spec.build() for spec in diffusers_layer_specs(tiny, seed)]


def unwrapped(tiny: Tiny, layers: Sequence[DiffusersLayer]) -> Any:
    """diffusers' model with the layers' weights."""
    model = model_class(tiny.class_name).from_config(dict(tiny.config))
    model.load_state_dict(whole_state(layers))
    return model


def whole_state(layers: Sequence[DiffusersLayer]) -> dict[str, Tensor]:
    return {
        layer.diffusers_names[own]: tensor
        for layer in layers
        for own, tensor in layer.state_dict().items()
        if own in layer.diffusers_names
    }


def boundaries(layers: int, stages: int) -> list[int]:
    """About equal stages, each with a block."""
    return [round(stage * layers / stages) for stage in range(stages + 1)]


def in_stages(layers: Sequence[nn.Module], stages: int, inputs: Inputs, gradient: Tensor | None) -> Tensor:
    """The prediction; with a gradient of it, backward too.

    Between stages (runtime/pipe/engine.py of DeepSpeed 0.19.8): floating-point tensors arrive as leaves that
    need a gradient (:1137), and each has one to send back (:1098); integers have none. Zeros go back for what
    a stage had no use for, and nothing happens to what comes back for tensors that no weight made
    (corrections.py, `backward_pass`).
    """
    received: Any = inputs
    kept: list[tuple[Inputs, Any]] = []
    for start, stop in pairwise(boundaries(len(layers), stages)):
        outputs: Any = received
        for layer in layers[start:stop]:
            outputs = layer(outputs)
        kept.append((received, outputs))
        if isinstance(outputs, tuple):
            received = tuple(x.detach().requires_grad_(x.is_floating_point()) for x in outputs)
    prediction: Tensor = kept[-1][1]
    if gradient is not None:
        gradients: Sequence[Tensor] = [gradient]
        for received, outputs in reversed(kept):
            ends = [outputs] if isinstance(outputs, Tensor) else [x for x in outputs if x.is_floating_point()]
            begun = [(x, gradient) for x, gradient in zip(ends, gradients, strict=True) if x.requires_grad]
            torch.autograd.backward([x for x, _ in begun], [gradient for _, gradient in begun])
            if received is not inputs:
                floating = [x for x in received if x.is_floating_point()]
                gradients = [torch.zeros_like(x) if x.grad is None else x.grad for x in floating]
    return prediction
