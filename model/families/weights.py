"""Where one layer's weights come from: drawn from a seed, or read from a diffusers folder."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Protocol

import torch
from torch import nn

from vdsgen.model.layers.initial import layer_generator


class Weights(Protocol):
    """Fills layers that have memory and no values yet."""

    def fill(self, layer: nn.Module, names: Mapping[str, str]) -> None:
        """`names` are the whole model's, by the layer's own."""


class RandomWeights:
    """What diffusers starts a model of its class from, drawn a layer at a time.

    torch's modules draw by their own `reset_parameters`, from a generator of the seed and the layer's index:
    every layout of ranks gets the same. Nothing starts at zero that diffusers does not start at zero, so a
    fresh model's prediction is not small.
    """

    def __init__(self, seed: int, index: int) -> None:
        self.seed, self.index = seed, index

    def fill(self, layer: nn.Module, names: Mapping[str, str]) -> None:  # noqa: ARG002
        # Adapters, where there are some, are drawn from another generator: the weights are the same without.
        draw(layer, lambda name: ".lora_" not in name, layer_generator(self.seed, self.index))


@torch.no_grad()
def draw(layer: nn.Module, drawn: Callable[[str], bool], generator: torch.Generator) -> None:
    """Resets those modules of `layer` whose names `drawn` accepts."""
    with global_generator(generator):
        for name, module in layer.named_modules():
            reset = getattr(module, "reset_parameters", None)
            if reset is not None and drawn(name):
                reset()


@contextmanager
def global_generator(generator: torch.Generator) -> Iterator[None]:
    """Inside, torch's own generator of the processor goes on from where `generator` is."""
    with torch.random.fork_rng(devices=[]):
        torch.set_rng_state(generator.get_state())
        yield
        generator.set_state(torch.get_rng_state())
