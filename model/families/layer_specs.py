"""A diffusers model as the list of LayerSpecs that stages are built from."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, Protocol

import torch
from deepspeed.pipe import LayerSpec
from deepspeed.runtime.zero import partition_parameters
from torch import Tensor, nn

from vdsgen.model.families.adapters import draw_adapters
from vdsgen.model.families.folder import FolderWeights
from vdsgen.model.families.skeleton import Skeleton, build_skeleton
from vdsgen.model.families.weights import RandomWeights, Weights
from vdsgen.spec.training import Lora


class Described(Protocol):
    """A model in an experiment, as vdsgen.spec has it."""

    @property
    def class_name(self) -> str: ...
    @property
    def config(self) -> Mapping[str, Any]: ...
    @property
    def weights(self) -> str | Path | None: ...


def diffusers_layer_specs(
    model: Described, seed: int, adapters: Lora | None = None, dtype: torch.dtype | None = None
) -> list[LayerSpec]:
    """The model's layers in the order they run; each builds itself alone, with its own weights.

    Built without weights once, the model is on every rank a few MB. A layer's weights come from
    `model.weights` (a folder with diffusers' safetensors), or are drawn from `seed` and the layer's index,
    whatever the layout. They are on the current device and of `dtype` (None: torch's default); inside
    `deepspeed.zero.Init` of its dtype, and shared between its ranks as soon as the layer is built. With
    `adapters` these alone require a gradient. Raises VdsgenError where class, configuration and folder do not
    fit each other.
    """
    skeleton = build_skeleton(model.class_name, model.config, seed, adapters)
    folder = None if model.weights is None else FolderWeights(Path(model.weights), skeleton)
    return [
        LayerSpec(DiffusersLayer, skeleton, index, seed, folder or RandomWeights(seed, index), dtype)
        for index in range(len(skeleton.layers))
    ]


class DiffusersLayer(nn.Module):
    """One layer with weights; takes and returns tuples of tensors, as the family's adapter says."""

    diffusers_names: dict[str, str]
    """Of each parameter and saved buffer of the model, by its name here: its name in diffusers' files."""
    adapter_names: dict[str, str]
    """Of each adapter's parameter, by its name here: its name in peft's files, before which those of
    diffusers' pipelines have `Family.adapter_prefix` and a dot."""

    def __init__(
        self,
        skeleton: Skeleton,
        index: int,
        seed: int,
        weights: Weights,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        self.kind, module = skeleton.layers[index]
        self.skips: Literal[-1, 0, 1] = getattr(module, "skips", 0)
        """1: the hidden state that it gets waits for a later layer; -1: it joins the last that waits."""
        self.layer = _with_memory(module)
        self.diffusers_names = _prefixed(skeleton.names[index])
        self.adapter_names = _prefixed(skeleton.adapter_names[index])
        if torch.get_default_device().type != "meta":
            weights.fill(self.layer, skeleton.names[index])
            draw_adapters(self.layer, seed, index)
        _take_dtype(self.layer, dtype or torch.get_default_dtype())

    def forward(self, inputs: tuple[Tensor, ...]) -> Any:
        return self.layer(inputs)


def _prefixed(names: Mapping[str, str]) -> dict[str, str]:
    return {f"layer.{own}": name for own, name in names.items()}


def _with_memory(module: nn.Module) -> nn.Module:
    """A copy of a skeleton's layer, fp32 on the current device: values where it has some, else whatever the
    memory holds."""
    device = torch.get_default_device()
    memo: dict[int, Any] = {}
    for parameter in module.parameters():
        memo[id(parameter)] = nn.Parameter(_placed(parameter, device), parameter.requires_grad)
    for buffer in module.buffers():
        memo[id(buffer)] = _placed(buffer, device)
    return copy.deepcopy(module, memo)


def _placed(tensor: Tensor, device: torch.device) -> Tensor:
    if tensor.is_meta:
        return torch.empty_like(tensor, device=device)
    return tensor.detach().to(device, copy=True)


def _take_dtype(layer: nn.Module, dtype: torch.dtype) -> None:
    """In ZeRO-3's context each rank keeps its share, from here on. That context converts what modules make
    in their constructors (zero/partition_parameters.py:1232); nothing here was made in one."""
    context = partition_parameters.top_level_context
    if context is not None:
        dtype = context.dtype
    for parameter in layer.parameters():
        parameter.data = parameter.data.to(dtype)
    if context is not None:
        context._convert_to_zero_parameters(layer.parameters())
