"""What an adapter says about its diffusers class, and what layers of all classes share.

A layer takes a tuple of tensors and returns one; the last returns the prediction (B, C, T, H, W) float32.
Between layers travel floating-point tensors that need a gradient, and integers. What follows from shapes
alone is made on each stage (`Constants`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn


class Cut(NamedTuple):
    """One pipeline layer of a model."""

    kind: str
    """Layers of one kind have the same shapes and costs."""
    module: nn.Module
    """Around submodules of the model, which stay the very same objects."""


@dataclass(frozen=True, slots=True)
class Family:
    """How one diffusers class becomes pipeline layers."""

    class_name: str
    """In diffusers."""
    cut: Callable[[Any], list[Cut]]
    """A model to its layers, in the order they run: every parameter of the model is in one of them."""
    depths: tuple[str, ...]
    """Keys of the configuration that say how many blocks of a kind there are; () where levels differ."""
    adapted: tuple[str, ...] = ("to_q", "to_k", "to_v", "to_out.0")
    """Linear layers that low-rank adapters go to: the attention projections, as training scripts choose."""
    adapter_prefix: str = "transformer"
    """What diffusers' pipelines call this part of themselves: names of saved adapters begin with it."""


class Constants:
    """Tensors that follow from shapes alone, such as rotary tables: made once a stage for each shape.

    Deliberately no buffers: the engine would cast those to half precision. All copies of a layer share them.
    """

    def __init__(self, make: Callable[..., tuple[Tensor, ...]]) -> None:
        self._make = make
        self._made: dict[tuple[Any, ...], tuple[Tensor, ...]] = {}

    def __call__(self, *shape: int, like: Tensor) -> tuple[Tensor, ...]:
        """`make(*shape)`, on the device of `like`."""
        key = (*shape, like.device)
        if key not in self._made:
            with torch.no_grad():
                self._made[key] = tuple(table.to(like.device) for table in self._make(*shape))
        return self._made[key]

    def __deepcopy__(self, memo: Any) -> Constants:
        return self

    @property
    def tensors(self) -> list[Tensor]:
        """All that were made so far."""
        return [table for tables in self._made.values() for table in tables]


def constants_of(layer: nn.Module) -> list[Tensor]:
    """What a layer's runs so far made for the whole stage."""
    found = (value for module in layer.modules() for value in vars(module).values())
    return [tensor for value in found if isinstance(value, Constants) for tensor in value.tensors]


class Unregistered:
    """Holds a module that makes constants, so that no layer counts it among its own and casts it."""

    def __init__(self, module: Any) -> None:
        self.module = module

    def __deepcopy__(self, memo: Any) -> Unregistered:
        return self


def a_token_each(of_frames: Tensor, tokens: int) -> Tensor:
    """(B, T, ...) -> (B, N, ...): what a frame has, all of its tokens have."""
    return of_frames.repeat_interleave(tokens // of_frames.shape[1], dim=1)


def at_most(x: Tensor, layer: nn.Module) -> Tensor:
    """`x` in the precision of the layer's weights, where that is the lower one."""
    dtype = next(layer.parameters()).dtype
    return x.to(dtype) if dtype.itemsize < x.dtype.itemsize else x


def unpatchified(x_BTIJC: Tensor, patch: tuple[int, int, int], *, channels_first: bool = False) -> Tensor:
    """b t i j (p q r c) -> b c (t p) (i q) (j r), patches of p frames, q rows and r columns; some classes
    keep a patch's channels first, (c p q r)."""
    batch, frames, rows, columns, _ = x_BTIJC.shape
    depth, height, width = patch
    grid = (batch, frames, rows, columns)
    if channels_first:
        x = x_BTIJC.reshape(*grid, -1, depth, height, width).permute(0, 4, 1, 5, 2, 6, 3, 7)
    else:
        x = x_BTIJC.reshape(*grid, depth, height, width, -1).permute(0, 7, 1, 4, 2, 5, 3, 6)
    return x.reshape(batch, -1, frames * depth, rows * height, columns * width)
