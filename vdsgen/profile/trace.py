"""Runs one layer forward and backward on tensors without contents at one geometry, and reads the books.

Meta tensors have shapes, layouts and storages of the right size, and nothing in them: a layer of any size
is traced in a fraction of a second. FakeTensorMode and real tensors give the same books (tested), except
that CPU kernels keep the statistics of layer norm in half precision where CUDA and meta keep fp32.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from vdsgen.model.layers.modulation import ROWS
from vdsgen.model.pipeline import layer_specs
from vdsgen.profile.ledger import Ledger, key_of
from vdsgen.spec.architecture import Geometry, Vdt

Kind = Literal["embed", "block", "final"]
LAYER_INDEX: dict[Kind, int] = {"embed": 0, "block": 1, "final": -1}
"""A pipeline layer of each kind."""


@dataclass(frozen=True, slots=True)
class Trace:
    """What one layer cost at one micro-batch size and geometry. Bytes unless named otherwise."""

    saved_bytes: int
    output_bytes: int
    side_bytes: int
    forward_temporaries: tuple[int, ...]
    """Alive at each operator of forward beyond what is held at its end."""
    backward_temporaries: tuple[int, ...]
    """Alive at each operator of backward beyond what was saved."""
    matmul_flops: int
    attention_flops: int
    backward_matmul_flops: int
    backward_attention_flops: int
    forward_traffic_bytes: int
    backward_traffic_bytes: int


class _FlashAttention(TorchFunctionMode):
    """Attention by the CPU's flash operator, which the CPU chooses by itself and the meta device does not.

    It keeps what CUDA's flash kernel keeps: the output, positions before heads, and fp32 log-sums.
    """

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is F.scaled_dot_product_attention:
            assert not kwargs, f"a mask or scale ({kwargs}) would choose another kernel"
            return torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(*args)[0]
        return func(*args, **(kwargs or {}))


def flash_attention() -> TorchFunctionMode:
    """Inside, attention is the flash operator, whatever the tensors' device would choose."""
    return _FlashAttention()


@contextmanager
def empty_tensors() -> Iterator[None]:
    """New tensors are on the meta device, and attention is the flash operator."""
    with torch.device("meta"), flash_attention():
        yield


def empty_layer(model: Vdt, geometry: Geometry, kind: Kind, dtype: torch.dtype) -> nn.Module:
    """A layer with weights in `dtype` and an accumulator for each gradient, on the current device."""
    default = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        layer: nn.Module = layer_specs(model, geometry, seed=0)[LAYER_INDEX[kind]].build()
    finally:
        torch.set_default_dtype(default)
    for parameter in layer.parameters():
        parameter.grad = torch.zeros_like(parameter)
    return layer


def empty_inputs(
    model: Vdt, batch: int, geometry: Geometry, kind: Kind, dtype: torch.dtype
) -> tuple[Tensor, ...]:
    """What the layer gets from the loader or from the layer before it, on the current device."""
    if kind == "embed":
        latents = (geometry.frames, geometry.latent_height, geometry.latent_width)
        first = (torch.empty(batch, model.in_channels, *latents), torch.empty(batch))
        if model.condition == "class":
            return (*first, torch.zeros(batch, dtype=torch.int64))
        if model.condition == "text":
            return (*first, torch.empty(batch, geometry.text_tokens, model.text_hidden_size))
        return first
    width = model.hidden_size
    shapes = [(batch, geometry.frames, geometry.patches, width), (batch, ROWS, width)]
    if model.condition == "text":
        shapes.append((batch, geometry.text_tokens, width))
    return tuple(torch.empty(shape, dtype=dtype, requires_grad=True) for shape in shapes)


def trace_layer(
    model: Vdt,
    batch: int,
    geometry: Geometry,
    kind: Kind,
    dtype: torch.dtype,
    tensors: Callable[[], AbstractContextManager[Any]] = empty_tensors,
) -> Trace:
    """Traces one layer of `kind` with parameters and activations in `dtype`, made under `tensors()`."""
    with tensors():
        layer = empty_layer(model, geometry, kind, dtype)
        return traced(layer, empty_inputs(model, batch, geometry, kind, dtype))


def traced(layer: nn.Module, inputs: tuple[Tensor, ...]) -> Trace:
    """Runs a layer forward and backward under the ledger."""
    known = [*inputs, *layer.parameters(), *(p.grad for p in layer.parameters() if p.grad is not None)]
    known += _shared_tables(layer, inputs[0])
    saved: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        saved[key_of(tensor)] = tensor.untyped_storage().nbytes()
        return tensor

    ledger = Ledger(known)
    with ledger, torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        result = layer(inputs)
        forward = ledger.close_phase()
    outputs = [x for x in (result if isinstance(result, tuple) else (result,)) if _is_new(x, inputs)]
    del result
    output_bytes, *side_bytes = (x.untyped_storage().nbytes() for x in outputs)
    excluded = {key_of(tensor) for tensor in [*known, *outputs]}
    saved_bytes = sum(size for key, size in saved.items() if key not in excluded)
    held = saved_bytes + output_bytes + sum(side_bytes)
    assert forward.end == held, f"{forward.end} bytes live after forward, {held} are saved or put out"

    edges = [torch.autograd.graph.get_gradient_edge(x) for x in outputs]
    gradients = [torch.empty_like(x) for x in outputs]
    del outputs
    with ledger:
        for gradient in gradients:
            ledger.count(gradient)
        del gradient
        torch.autograd.backward(edges, _handed_over(gradients))
        backward = ledger.close_phase()
    return Trace(
        saved_bytes=saved_bytes,
        output_bytes=output_bytes,
        side_bytes=sum(side_bytes),
        forward_temporaries=tuple(moment - forward.end for moment in forward.moments),
        backward_temporaries=tuple(moment - saved_bytes for moment in backward.moments),
        matmul_flops=forward.matmul_flops,
        attention_flops=forward.attention_flops,
        backward_matmul_flops=backward.matmul_flops,
        backward_attention_flops=backward.attention_flops,
        forward_traffic_bytes=forward.traffic_bytes,
        backward_traffic_bytes=backward.traffic_bytes,
    )


def _handed_over(tensors: list[Tensor]) -> list[Tensor]:
    """The tensors in a list that nobody else holds, so that backward frees each once it is used."""
    handed = list(tensors)
    tensors.clear()
    return handed


def _is_new(tensor: Tensor, inputs: tuple[Tensor, ...]) -> bool:
    return key_of(tensor) not in {key_of(x) for x in inputs}


def _shared_tables(layer: nn.Module, hidden: Tensor) -> list[Tensor]:
    """Rotary tables: made once, and read by every layer."""
    rotary = getattr(layer, "rotary", None)
    if rotary is None:
        return []
    return [*rotary.spatial(hidden), *rotary.temporal(hidden.shape[1], hidden)]
