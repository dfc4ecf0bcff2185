"""Watching each layer's output and gradients, so that whoever warns can say where.

All it does in a step is one sum over each layer's output and over that output's gradient, and one norm of
each parameter's gradient in the last micro-batch. The sums stay on the device: they are read only after a
step whose loss or gradient norm is not finite.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Any, Literal

import torch
from torch import Tensor, nn

NotFinite = Literal["input", "output", "loss", "backward"]


class _Phase(IntEnum):
    INPUT = 0
    FORWARD = 1
    BACKWARD = 2


@dataclass(frozen=True, slots=True, order=True)
class Finding:
    """Where a value was not finite. Findings of several ranks sort by when they happened: by micro-batch,
    then forward in the order of layers, then backward against it."""

    micro_batch: int
    """From 0, of this data rank's step."""
    phase: int
    place: int
    layer: int
    rank: int = 0

    @property
    def what(self) -> NotFinite:
        if self.phase == _Phase.BACKWARD:
            return "backward" if self.layer >= 0 else "loss"
        return "input" if self.phase == _Phase.INPUT else "output"


class LayerWatch:
    """The layers of this rank: `indices[i]` is the model's number of `layers[i]`, of `total` in the model."""

    def __init__(self, indices: Sequence[int], layers: Sequence[nn.Module], total: int) -> None:
        self.indices = tuple(indices)
        self.names = tuple(_name(layer) for layer in layers)
        self.total = total
        self.enabled = True
        self._is_on = False
        self._micro_batch = -1
        self._norms_from = 0
        self._sums: list[tuple[int, int, int, int, Tensor]] = []
        """micro-batch, phase, place, layer, the sum."""
        self._norms: list[tuple[int, int, Tensor]] = []
        """micro-batch, place in `indices`, norm of one parameter's gradient."""
        for place, layer in enumerate(layers):
            self._hook(place, layer)

    def begin(self, micro_batches: int, *, suspicious: bool = False) -> None:
        """A step of so many micro-batches begins. `suspicious`: the gradients of all of them are watched, not
        of the last alone."""
        self._is_on = self.enabled
        self._micro_batch = -1
        self._norms_from = 0 if suspicious else micro_batches - 1
        self._sums, self._norms = [], []

    def end(self) -> None:
        self._is_on = False

    def gradient_squares(self) -> list[float]:
        """The squared norm of each own layer's gradient in the micro-batches that were watched, as this rank
        has it, in the engine's scale. Zeros where nothing was seen. Waits for the device."""
        squares = [0.0] * len(self.indices)
        if self._norms:
            values = torch.stack([norm for _, _, norm in self._norms]).double().square().tolist()
            for (_, place, _), value in zip(self._norms, values, strict=True):
                squares[place] += value
        return squares

    def first_not_finite(self) -> Finding | None:
        """Of the last step, on this rank. Waits for the device."""
        found = [
            Finding(micro, phase, place, layer)
            for (micro, phase, place, layer, total) in self._sums
            if not bool(total.isfinite())
        ]
        found += [
            Finding(micro, _Phase.BACKWARD, self.total - self.indices[place], self.indices[place])
            for micro, place, norm in self._norms
            if not bool(norm.isfinite())
        ]
        return min(found, default=None)

    def _hook(self, place: int, layer: nn.Module) -> None:
        index = self.indices[place]

        def before(_: nn.Module, inputs: tuple[Any, ...]) -> None:
            if not self._is_watching():
                return
            if place == 0:
                self._micro_batch += 1
            if index == 0:
                for tensor in _floating(inputs):
                    self._note(_Phase.INPUT, 0, index, tensor)

        def after(_: nn.Module, __: Any, outputs: Any) -> None:
            if not self._is_watching():
                return
            tensor = next(iter(_floating(outputs)), None)
            if tensor is None:
                return
            self._note(_Phase.FORWARD, index, index, tensor)
            if tensor.requires_grad:
                self._watch_gradient(index, tensor)

        layer.register_forward_pre_hook(before)
        layer.register_forward_hook(after)
        for parameter in layer.parameters():
            if parameter.requires_grad:
                parameter.register_hook(self._parameter_hook(place))  # type: ignore[no-untyped-call]

    def _watch_gradient(self, index: int, output: Tensor) -> None:
        """What reaches a layer's output was made by the backward of the next layer; for the last one, by the
        loss."""
        micro_batch = self._micro_batch
        maker = index + 1 if index + 1 < self.total else -1
        place = self.total - index - 1

        def note(gradient: Tensor) -> None:
            if self._is_on:
                total = gradient.detach().sum(dtype=torch.float32)
                self._sums.append((micro_batch, _Phase.BACKWARD, place, maker, total))

        output.register_hook(note)  # type: ignore[no-untyped-call]

    def _parameter_hook(self, place: int) -> Any:
        def note(gradient: Tensor) -> None:
            if self._is_on and self._micro_batch >= self._norms_from:
                norm = torch.linalg.vector_norm(gradient.detach(), dtype=torch.float32)
                self._norms.append((self._micro_batch, place, norm))

        return note

    def _is_watching(self) -> bool:
        """Not where a checkpointed segment runs again, in backward."""
        return self._is_on and torch.is_grad_enabled() and torch._C._current_graph_task_id() == -1

    def _note(self, phase: _Phase, place: int, layer: int, tensor: Tensor) -> None:
        total = tensor.detach().sum(dtype=torch.float32)
        self._sums.append((self._micro_batch, phase, place, layer, total))


def _floating(tensors: Any) -> list[Tensor]:
    """Of a tensor, or of tensors that may be nested in tuples."""
    if isinstance(tensors, Tensor):
        return [tensors] if tensors.is_floating_point() else []
    if isinstance(tensors, (tuple, list)):
        return [found for value in tensors for found in _floating(value)]
    return []


def _name(layer: nn.Module) -> str:
    return str(getattr(layer, "layer_name", type(layer).__name__))


def layers_of(module: nn.Module) -> tuple[list[int], list[nn.Module]]:
    """The pipeline layers that this rank holds, and their numbers in the model."""
    functions = getattr(module, "forward_funcs", None)
    if functions is not None:
        start = int(module._local_start)  # type: ignore[arg-type]
        numbered = [(start + place, layer) for place, layer in enumerate(functions)]
        own = [(index, layer) for index, layer in numbered if isinstance(layer, nn.Module)]
    else:
        own = [(int(name), layer) for name, layer in module.named_children() if name.isdecimal()]
    return [index for index, _ in own], [layer for _, layer in own]
