"""What a family of diffusers models has to say to be traced, and one layer of each type with its inputs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from vdsgen.model.families.family import Family
from vdsgen.model.families.layer_specs import DiffusersLayer
from vdsgen.model.families.skeleton import Skeleton, build_skeleton
from vdsgen.model.families.weights import RandomWeights
from vdsgen.profile.points import Point
from vdsgen.profile.precision import CudaAutocast
from vdsgen.profile.trace import Run
from vdsgen.spec.training import Lora

Config = Mapping[str, Any]
ENDS = frozenset({"embed", "final"})
"""Layers that are no blocks."""
GRIDS = ((3, 5), (4, 7), (2, 9), (11, 13), (6, 5))
SHALLOW = 2
"""Blocks of each kind in the model that is traced: some are another kind as the first or the last."""


BATCHES = (2, 3, 4)
"""None is 1, where layouts degenerate."""


@dataclass(frozen=True, slots=True)
class TracedFamily:
    """How the layers of one diffusers class are traced."""

    cut: Family
    sample: Callable[[Config, Point], tuple[Tensor, ...]]
    """What a data loader gives the first layer, float32 and integers, on the current device."""
    monomials: tuple[str, ...]
    """What costs are sums of (see points.py)."""
    states: int = 1
    """Hidden states that each block makes anew: 2 where text changes along the way."""
    adapted: tuple[str, ...] | None = None
    """Linear layers that adapters go to; None: those that the family names."""
    batches: tuple[int, ...] = BATCHES
    """Samples of the traced micro-batches. One size alone: plans have micro-batches of that size at most."""
    grids: tuple[tuple[int, int], ...] = GRIDS
    """Rows and columns of patches to trace."""

    @property
    def class_name(self) -> str:
        return self.cut.class_name

    def order(self, config: Config) -> tuple[str, ...]:
        """The type of every layer of the full model."""
        with torch.device("meta"):
            return tuple(layer.kind for layer in build_skeleton(self.class_name, config, 0).layers)

    def shallow(self, config: Config) -> dict[str, Any]:
        """The configuration with few blocks of each type."""
        return {**config, **{key: min(SHALLOW, config[key]) for key in self.cut.depths}}


@dataclass(frozen=True, slots=True)
class Training:
    """What trains, and in which precision."""

    weights: torch.dtype
    autocast: bool = False
    adapter_rank: int = 0
    """0: every weight trains."""
    adapter_weights: torch.dtype = torch.float32


class Example(NamedTuple):
    """A layer of one type, and what it gets from the loader or from the layers before it."""

    layer: DiffusersLayer
    inputs: tuple[Tensor, ...]


def layers_of(family: TracedFamily, config: Config, training: Training) -> list[DiffusersLayer]:
    """Of the shallow model, on the current device, with an accumulator for each gradient."""
    adapters = None
    if training.adapter_rank:
        targets = family.adapted or family.cut.adapted
        adapters = Lora(rank=training.adapter_rank, targets=targets)
    skeleton = build_skeleton(family.class_name, family.shallow(config), 0, adapters)
    default = torch.get_default_dtype()
    torch.set_default_dtype(training.weights)
    try:
        layers = [_layer(skeleton, index) for index in range(len(skeleton.layers))]
    finally:
        torch.set_default_dtype(default)
    for parameter in (p for layer in layers for p in layer.parameters() if p.requires_grad):
        if adapters is not None:
            parameter.data = parameter.data.to(training.adapter_weights)
        parameter.grad = torch.zeros_like(parameter)
    return layers


def _layer(skeleton: Skeleton, index: int) -> DiffusersLayer:
    return DiffusersLayer(skeleton, index, 0, RandomWeights(0, index))


def examples(
    family: TracedFamily,
    config: Config,
    layers: Sequence[DiffusersLayer],
    training: Training,
    point: Point,
) -> dict[str, Example]:
    """The last layer of each type: in mixed precision the first may get another dtype, and behind a frozen
    first layer one without a gradient. All layers have run once: what a stage makes once is there."""
    compute = torch.bfloat16 if training.autocast else training.weights
    tensors = tuple(x.to(compute) if x.is_floating_point() else x for x in family.sample(config, point))
    found: dict[str, Example] = {}
    for layer in layers:
        found[layer.kind] = Example(layer, tensors)
        outputs = _run(layer, tensors, training)
        if isinstance(outputs, tuple):
            tensors = tuple(x.detach().requires_grad_(x.requires_grad) for x in outputs)
    return {kind: found[kind] for kind in dict.fromkeys(layer.kind for layer in layers)}


def latents(config: Config, point: Point, patch: int = 1) -> Tensor:
    """The noised sample, with so many latent frames in a patch."""
    where = point.geometry
    frames = where.frames * patch
    return torch.empty(point.batch, config["in_channels"], frames, where.latent_height, where.latent_width)


def run_of(family: TracedFamily, training: Training, kernel: Any = "flash") -> Run:
    """How the tracer runs a layer of this family."""
    return Run(kernel=kernel, autocast=training.autocast, states=family.states)


def _run(layer: DiffusersLayer, tensors: tuple[Tensor, ...], training: Training) -> Any:
    if not training.autocast:
        return layer(tensors)
    with CudaAutocast():
        return layer(tensors)
