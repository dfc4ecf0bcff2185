"""Runs one layer forward and backward on tensors without contents at one geometry, and reads the books.

Meta tensors have shapes, layouts and storages of the right size, and nothing in them: a layer of any size
is traced in a fraction of a second. FakeTensorMode and real tensors give the same books (tested), except
that CPU kernels keep the statistics of layer norm in half precision where CUDA and meta keep fp32.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.autograd.graph import GradientEdge, get_gradient_edge
from torch.utils.checkpoint import checkpoint

from vdsgen.model.activation_compression import Codec, Packed
from vdsgen.model.families.family import constants_of
from vdsgen.model.layers.block import Block
from vdsgen.model.layers.modulation import ROWS
from vdsgen.model.layers.sequence_parallel import WHOLE, SequenceRanks
from vdsgen.model.layers.tensor_parallel import ALONE, TensorRanks
from vdsgen.model.pipeline import layer_specs
from vdsgen.model.selective import KeptProducts
from vdsgen.profile.kernels import ChosenAttention
from vdsgen.profile.ledger import Entry, Ledger, key_of
from vdsgen.profile.precision import CudaAutocast
from vdsgen.profile.shapes import Shapes
from vdsgen.spec.architecture import Geometry, Vdt
from vdsgen.spec.profile import AttentionKernel

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
    shapes: Shapes
    """Of forward; its products and attentions determine those of backward."""
    backward_kernels: int
    constant_bytes: int = 0
    """What the layer shares with all others of its stage, made once: rotary tables."""
    unsaved_input_bytes: int = 0
    """Of the states that it is given, what nothing in it saves: they may go when it has run forward."""


@dataclass(frozen=True, slots=True)
class CheckpointedTrace:
    """What recomputation inside a checkpoint adds, at one micro-batch size and geometry."""

    recomputed_bytes: int
    recomputed_matmul_flops: int
    recomputed_attention_flops: int
    recomputed_traffic_bytes: int
    moments: tuple[int, ...]
    """Alive at each operator of recomputation and backward, beyond inputs, parameters and what was saved."""
    saved_bytes: int = 0
    """Products that selective recomputation keeps, where they are no outputs."""
    forward_temporaries: tuple[int, ...] = ()
    """Alive at each operator of forward beyond what is held at its end."""
    recomputed_kernels: int = 0
    forward_traffic_bytes: int = 0


@dataclass(frozen=True, slots=True)
class Run:
    """How a layer is run."""

    kernel: AttentionKernel = "flash"
    autocast: bool = False
    """Under CUDA's bf16 autocast."""
    states: int = 1
    """The first outputs, which each layer makes anew; later ones are sides that all layers share. Of the
    inputs as many are states, but the first layer's, which need no gradient."""


@contextmanager
def empty_tensors() -> Iterator[None]:
    """New tensors are on the meta device, and attention is the flash operator."""
    with torch.device("meta"), ChosenAttention("flash"):
        yield


def empty_layer(
    model: Vdt,
    geometry: Geometry,
    kind: Kind,
    dtype: torch.dtype,
    ranks: TensorRanks = ALONE,
    sequence: SequenceRanks = WHOLE,
) -> nn.Module:
    """A layer, or a rank's share of it, with weights in `dtype` and an accumulator for each gradient, on the
    current device."""
    default = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        layer: nn.Module = layer_specs(model, geometry, 0, ranks, sequence)[LAYER_INDEX[kind]].build()
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
    width, patch = model.hidden_size, model.patch_size
    rows, columns = geometry.latent_height // patch, geometry.latent_width // patch
    shapes: list[tuple[int, ...]] = [(batch, geometry.frames, rows, columns, width), (batch, ROWS, width)]
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


def traced(layer: nn.Module, inputs: tuple[Tensor, ...], run: Run = Run()) -> Trace:
    """Runs a layer forward and backward under the ledger.

    What trains is what requires a gradient, inputs among it. Where no output does (a frozen first layer),
    there is no backward, and its figures are 0.
    """
    known = _known(layer, inputs)
    saved: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        saved[key_of(tensor)] = tensor.untyped_storage().nbytes()
        return tensor

    ledger = Ledger(known, run.kernel)
    with ledger, torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        with _precision(run):
            outputs = _new_outputs(layer(inputs), inputs)
        forward = ledger.close_phase()
    states, sides = _storages(outputs[: run.states]), _storages(outputs[run.states :])
    sides = {key: size for key, size in sides.items() if key not in states}
    excluded = {key_of(tensor) for tensor in known} | states.keys() | sides.keys()
    saved_bytes = sum(size for key, size in saved.items() if key not in excluded)
    held = saved_bytes + sum(states.values()) + sum(sides.values())
    assert forward.end == held, f"{forward.end} bytes live after forward, {held} are saved or put out"
    assert not saved.keys() & states.keys(), "an output that its own layer saves outlives whoever is given it"
    given = _storages([x for x in inputs[: run.states] if x.requires_grad])

    edges, gradients = _edges(outputs)
    del outputs
    with ledger:
        backward = _backward(ledger, edges, gradients)
    return Trace(
        saved_bytes=saved_bytes,
        output_bytes=sum(states.values()),
        side_bytes=sum(sides.values()),
        forward_temporaries=tuple(moment - forward.end for moment in forward.moments),
        backward_temporaries=tuple(moment - saved_bytes for moment in backward.moments),
        matmul_flops=forward.matmul_flops,
        attention_flops=forward.attention_flops,
        backward_matmul_flops=backward.matmul_flops,
        backward_attention_flops=backward.attention_flops,
        forward_traffic_bytes=forward.traffic_bytes,
        backward_traffic_bytes=backward.traffic_bytes,
        shapes=forward.shapes,
        backward_kernels=backward.shapes.kernels,
        constant_bytes=sum(table.nbytes for table in constants_of(layer)),
        unsaved_input_bytes=sum(size for key, size in given.items() if key not in saved),
    )


def traced_checkpointed(
    layer: nn.Module,
    inputs: tuple[Tensor, ...],
    run: Run = Run(),
    *,
    selective: bool = False,
    codec: Codec | None = None,
) -> CheckpointedTrace:
    """Runs a layer inside torch's non-reentrant checkpoint, as training without a pipeline does; `selective`:
    as one that keeps its products, packed by `codec`.

    The states of random generators that the checkpoint may keep are on the processor: not asked for.
    """
    known = _known(layer, inputs)
    ledger = Ledger(known, run.kernel)
    starts: list[Entry] = []

    def once_more(*tensors: Tensor) -> Any:
        starts.append(ledger.entry())
        try:
            with _precision(run):
                return layer(tensors)
        finally:
            ledger.note_next()

    options: dict[str, Any] = {"context_fn": KeptProducts(codec).contexts} if selective else {}
    with ledger:
        result = checkpoint(once_more, *inputs, use_reentrant=False, preserve_rng_state=False, **options)
        outputs = _new_outputs(result, inputs)
        del result, options
        forward = ledger.close_phase()
    saved_bytes = forward.end - sum(_storages(outputs).values())
    edges, gradients = _edges(outputs)
    del outputs, starts[:]
    with ledger:
        backward = _backward(ledger, edges, gradients)
    if not starts:  # nothing trains here
        return CheckpointedTrace(0, 0, 0, 0, ())
    start, end = starts[0], ledger.noted
    assert end is not None, "backward goes on after recomputation"
    return CheckpointedTrace(
        recomputed_bytes=end.end - start.end,
        recomputed_matmul_flops=end.matmul_flops - start.matmul_flops,
        recomputed_attention_flops=end.attention_flops - start.attention_flops,
        recomputed_traffic_bytes=end.traffic_bytes - start.traffic_bytes,
        moments=tuple(moment - saved_bytes for moment in backward.moments),
        saved_bytes=saved_bytes,
        forward_temporaries=tuple(moment - forward.end for moment in forward.moments),
        recomputed_kernels=end.kernels - start.kernels,
        forward_traffic_bytes=forward.traffic_bytes,
    )


@dataclass(frozen=True, slots=True)
class PackingTrace:
    """What packing a hidden state, and unpacking it, costs."""

    packed_bytes: int
    packing_traffic_bytes: int
    unpacking_traffic_bytes: int


def traced_packing(hidden: Tensor, codec: Codec) -> PackingTrace:
    """Of one that the codec packs or, where it would not pay, leaves as it is."""
    ledger = Ledger([hidden])
    with ledger:
        kept = codec.pack(hidden)
        packing = ledger.close_phase()
        if not isinstance(kept, Packed):
            return PackingTrace(hidden.nbytes, 0, 0)
        kept.unpacked()
        unpacking = ledger.close_phase()
    return PackingTrace(kept.nbytes, packing.traffic_bytes, unpacking.traffic_bytes)


def _known(layer: nn.Module, inputs: tuple[Tensor, ...]) -> list[Tensor]:
    """What exists before the layer runs, gradient accumulators included."""
    accumulators = [p.grad for p in layer.parameters() if p.grad is not None]
    return [*inputs, *layer.parameters(), *layer.buffers(), *accumulators, *_shared_tables(layer, inputs[0])]


def _precision(run: Run) -> AbstractContextManager[Any]:
    return CudaAutocast() if run.autocast else nullcontext()


def _new_outputs(result: Any, inputs: tuple[Tensor, ...]) -> list[Tensor]:
    """A layer's outputs without those that it only hands on."""
    known = {key_of(x) for x in inputs}
    outputs = result if isinstance(result, tuple) else (result,)
    return [x for x in outputs if key_of(x) not in known]


def _storages(tensors: Sequence[Tensor]) -> dict[int, int]:
    """Bytes of each storage once, however many tensors look at it."""
    return {key_of(x): x.untyped_storage().nbytes() for x in tensors}


def _edges(outputs: Sequence[Tensor]) -> tuple[list[GradientEdge], list[Tensor]]:
    """Where backward starts, without holding the outputs, and gradients for it."""
    trained = [x for x in outputs if x.requires_grad]
    return [get_gradient_edge(x) for x in trained], [torch.empty_like(x) for x in trained]


def _backward(ledger: Ledger, edges: list[GradientEdge], gradients: list[Tensor]) -> Entry:
    """Books a backward, which frees each gradient once it is used."""
    for gradient in gradients:
        ledger.count(gradient)
    if edges:
        torch.autograd.backward(edges, _handed_over(gradients))
    return ledger.close_phase()


def _handed_over(tensors: list[Tensor]) -> list[Tensor]:
    """The tensors in a list that nobody else holds, so that backward frees each once it is used."""
    handed = list(tensors)
    tensors.clear()
    return handed


def _shared_tables(layer: nn.Module, hidden: Tensor) -> tuple[Tensor, ...]:
    """Rotary tables: made once, and read by every layer. diffusers' have theirs from an earlier run."""
    if not isinstance(layer, Block):
        return tuple(constants_of(layer))
    return tuple(table for rotation in layer.rotations(hidden) for table in rotation or ())
