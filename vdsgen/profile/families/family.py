"""What a family of diffusers models has to say to be traced, and the layers of one of its models."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from vdsgen.profile.points import Point
from vdsgen.profile.precision import CudaAutocast
from vdsgen.profile.trace import Run

Config = Mapping[str, Any]
FINAL = "final"


@dataclass(frozen=True, slots=True)
class Family:
    """How one diffusers class is cut. Layers take and return tuples: what they work on, then what they share.

    The first layer gets `sample`; the last one's output is the model's prediction, made fp32 for the loss.
    """

    class_name: str
    """In diffusers."""
    blocks: Mapping[str, str]
    """Block type -> the configuration's key for how many there are, in the order they run."""
    layers: Callable[[Any], dict[str, nn.Module]]
    """A model to one layer of each type, in the order they run; shared modules are in one layer each."""
    sample: Callable[[Config, Point], tuple[Tensor, ...]]
    """What a data loader gives, float32, on the current device."""
    monomials: tuple[str, ...]
    """What costs are sums of (see points.py)."""
    states: int = 1
    """Hidden states that each block makes anew: 2 where text changes along the way."""
    adapted: tuple[str, ...] = ("to_q", "to_k", "to_v", "to_out.0")
    """Linear layers that adapters go to: the attention projections, as training scripts choose."""

    def order(self, config: Config) -> tuple[str, ...]:
        """The type of every layer of the full model."""
        blocks = [name for name, key in self.blocks.items() for _ in range(config[key])]
        return ("embed", *blocks, FINAL)

    def shallow(self, config: Config) -> dict[str, Any]:
        """The configuration with one block of each type."""
        return {**config, **dict.fromkeys(self.blocks.values(), 1)}


@dataclass(frozen=True, slots=True)
class Training:
    """What trains, and in which precision."""

    weights: torch.dtype
    autocast: bool = False
    adapter_rank: int = 0
    """0: every weight trains."""
    adapter_weights: torch.dtype = torch.float32


class _Final(nn.Module):
    """The last layer with its prediction made fp32, as losses take it."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, inputs: tuple[Tensor, ...]) -> Tensor:
        result: Tensor = self.layer(inputs)
        return result.float()


def whole_model(family: Family, config: Config, training: Training) -> nn.Module:
    """diffusers' model on the current device; weights that do not train require no gradient."""
    import diffusers

    model: Any = getattr(diffusers, family.class_name).from_config(dict(config))
    _cast(model.parameters(), training.weights)  # buffers stay as they are: rotary tables are fp32
    if training.adapter_rank:
        from peft import LoraConfig

        rank = training.adapter_rank
        model.requires_grad_(False)
        model.add_adapter(LoraConfig(r=rank, lora_alpha=rank, target_modules=list(family.adapted)))
        _cast((p for p in model.parameters() if p.requires_grad), training.adapter_weights)
    return model  # type: ignore[no-any-return]


def _cast(parameters: Iterable[nn.Parameter], dtype: torch.dtype) -> None:
    for parameter in parameters:
        parameter.data = parameter.data.to(dtype)


def layers_of(family: Family, model: nn.Module) -> dict[str, nn.Module]:
    """One layer of each type, with an accumulator for each gradient."""
    layers = family.layers(model)
    layers[FINAL] = _Final(layers[FINAL])
    for layer in layers.values():
        for parameter in layer.parameters():
            if parameter.requires_grad:
                parameter.grad = torch.zeros_like(parameter)
    return layers


def inputs_of(
    family: Family, config: Config, layers: Mapping[str, nn.Module], training: Training, point: Point
) -> dict[str, tuple[Tensor, ...]]:
    """What each layer type gets from the loader or from the layers before it.

    Of blocks, what the second one gets: in mixed precision the first may get another dtype, and behind a
    frozen first layer one without a gradient.
    """
    compute = torch.bfloat16 if training.autocast else training.weights
    tensors = tuple(x.to(compute) if x.is_floating_point() else x for x in family.sample(config, point))
    inputs: dict[str, tuple[Tensor, ...]] = {}
    for name, layer in layers.items():
        if name in family.blocks:
            tensors = _handed_on(_run(layer, tensors, training))
        inputs[name] = tensors
        if name != FINAL:
            tensors = _handed_on(_run(layer, tensors, training))
    return inputs


def _handed_on(outputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    return tuple(x.detach().requires_grad_(x.requires_grad) for x in outputs)


def unpatchified(prediction: Tensor, patch: int) -> Tensor:
    """A prediction's patches as pixels (their axes in no useful order): whichever it is, one copy."""
    batch, tokens, width = prediction.shape
    return prediction.view(batch, tokens, patch, width // patch).transpose(1, 2).flatten(1)


def run_of(family: Family, training: Training, kernel: Any = "flash") -> Run:
    """How the tracer runs a layer of this family."""
    return Run(kernel=kernel, autocast=training.autocast, states=family.states)


def _run(layer: nn.Module, tensors: Sequence[Tensor], training: Training) -> tuple[Tensor, ...]:
    if not training.autocast:
        return layer(tuple(tensors))  # type: ignore[no-any-return]
    with CudaAutocast():
        return layer(tuple(tensors))  # type: ignore[no-any-return]
