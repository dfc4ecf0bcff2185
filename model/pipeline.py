"""A model as a list of pipeline layers: the one description that training and profiles share.

Layer 0 is `Embed`, layers 1 to depth are `Block`s, the last is `Final`. One rank's part of that list is
a `PlannedPipelineModule` where there are several stages, and a `SequentialModel` where there is one; both
give layer i the parameter prefix "i", and both recompute the same segments in backward.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from itertools import pairwise
from typing import Any

import torch
from deepspeed.pipe import LayerSpec, PipelineModule
from deepspeed.runtime.activation_checkpointing.checkpointing import non_reentrant_checkpoint
from deepspeed.runtime.pipe.topology import ProcessTopology
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from vdsgen.errors import VdsgenError
from vdsgen.model.activation_compression import Codec
from vdsgen.model.activation_offload import ActivationOffload
from vdsgen.model.layers.block import Block
from vdsgen.model.layers.embedding import Embed
from vdsgen.model.layers.final import Final
from vdsgen.model.layers.positions import RotaryTables
from vdsgen.model.layers.sequence_parallel import WHOLE, SequenceRanks, check_sequence_ranks
from vdsgen.model.layers.tensor_parallel import ALONE, TensorRanks, check_tensor_ranks
from vdsgen.model.selective import KeptProducts
from vdsgen.spec.architecture import Geometry, Vdt

Target = Tensor | tuple[Tensor, ...]
"""What a prediction is compared with; with a recipe's weights of the samples beside it."""

Batch = tuple[tuple[Tensor, ...], Any]
"""(the first layer's inputs, what the loss takes: `Target`) of one micro-batch, on any device."""
LossFunction = Callable[[Tensor, Any], Tensor]
"""(prediction, target) -> the scalar loss"""
Activations = tuple[Tensor, ...]
"""What one layer hands to the next: (hidden, modulation[, context])."""


def layer_specs(
    model: Vdt,
    geometry: Geometry,
    seed: int,
    ranks: TensorRanks = ALONE,
    sequence: SequenceRanks = WHOLE,
) -> list[LayerSpec]:
    """[Embed, Block x depth, Final]; each builds itself with the initial weights that `seed` gives its index,
    a block with this rank's share of them. `sequence` ranks share the clips, whose size `geometry` is.

    The layers take clips of every size that `check_fits` accepts: they read it off the tensors they get.
    Raises VdsgenError where this geometry does not fit the model, or the ranks cannot share it.
    """
    check_fits(model, geometry)
    check_tensor_ranks(model, ranks.size)
    check_sequence_ranks(model, geometry, sequence.size)
    rotary = RotaryTables(model.hidden_size // model.heads) if model.position == "rotary" else None
    blocks = [
        LayerSpec(Block, model, seed, index, rotary, ranks, sequence) for index in range(1, model.depth + 1)
    ]
    return [
        LayerSpec(Embed, model, seed, 0, sequence),
        *blocks,
        LayerSpec(Final, model, seed, model.depth + 1),
    ]


def check_fits(model: Vdt, geometry: Geometry) -> None:
    """Raises VdsgenError where clips of this geometry do not fit the model."""
    patch = model.patch_size
    height, width = geometry.latent_height, geometry.latent_width
    if height % patch or width % patch:
        raise VdsgenError(f"patch_size ({patch}) must divide the latent frame ({height} x {width})")
    if (height // patch) * (width // patch) != geometry.patches:
        raise VdsgenError(
            f"{geometry.patches} patches a frame do not make a latent frame of {height} x {width} "
            f"in patches of {patch} x {patch}"
        )
    if model.position == "learned" and (
        geometry.frames > model.max_frames or geometry.patches > model.max_patches
    ):
        raise VdsgenError(
            f"{geometry.frames} latent frames of {geometry.patches} patches are more than the learned "
            f"positions hold (max_frames {model.max_frames}, max_patches {model.max_patches})",
            remedy="raise the model's max_frames or max_patches, or use position: rotary",
        )
    if model.condition == "text" and geometry.text_tokens < 1:
        raise VdsgenError(
            "condition: text needs text tokens, and this geometry has none",
            remedy="give data.text_encoder, or set the model's condition to class or none",
        )


class PlannedPipelineModule(PipelineModule):  # type: ignore[misc]
    """DeepSpeed's PipelineModule with the stages' boundaries given, not derived.

    `partition` holds len(stages) + 1 layer indices; stage i owns layers partition[i] to partition[i + 1], and
    recomputes them in segments of `checkpoint_intervals[i]` (0: none), its last `plain_layers[i]` excepted;
    the `selective_layers[i]` before those keep their products.
    The distributed backend must be initialised. Call on every rank; each builds only its own layers. Without
    a topology ranks are stages x data-parallel ranks.
    """

    def __init__(
        self,
        layers: Sequence[LayerSpec],
        partition: Sequence[int],
        checkpoint_intervals: Sequence[int],
        loss_fn: LossFunction,
        topology: ProcessTopology | None = None,
        offload: ActivationOffload | None = None,
        plain_layers: Sequence[int] = (),
        selective_layers: Sequence[int] = (),
        codec: Codec | None = None,
    ) -> None:
        check_partition(partition, len(layers))
        # Before super().__init__, which calls _partition_layers; a plain list needs no nn.Module yet.
        self.parts = list(partition)
        super().__init__(
            layers=list(layers),
            num_stages=len(partition) - 1,
            topology=topology,
            loss_fn=loss_fn,
            partition_method="planned",
            activation_checkpoint_func=non_reentrant_checkpoint,
        )
        self.offload = offload
        self.codec = codec
        # The stage is known now; what the engine derives from the interval, it derives after this.
        self.activation_checkpoint_interval = checkpoint_intervals[self.stage_id]
        self.plain_layers = plain_layers[self.stage_id] if plain_layers else 0
        self.selective_layers = selective_layers[self.stage_id] if selective_layers else 0

    def forward(self, forward_input: Any) -> Any:
        """DeepSpeed's function keeps a segment's input in a closure, out of any hook's reach: to offload or
        pack it, torch's is used. Nor does DeepSpeed know of layers that are recomputed in part or
        run plainly after the segments. Pipelines never run ZeRO-3, and both recompute the same."""
        by_the_engine = self.offload is None and self.codec is None
        by_the_engine = by_the_engine and not self.plain_layers and not self.selective_layers
        if by_the_engine or not torch.is_grad_enabled():
            return _sendable(super().forward(forward_input))
        interval = self.activation_checkpoint_interval
        outputs = run_segments(
            self.forward_funcs,
            forward_input,
            interval,
            self.offload,
            self.plain_layers,
            self.selective_layers,
            self.codec,
        )
        return _sendable(outputs)

    def _partition_layers(self, method: str = "planned") -> None:
        assert method == "planned", f"this module's stages are given, not derived by {method!r}"
        stage = self._topo.get_coord(self.global_rank).pipe
        self._set_bounds(start=self.parts[stage], stop=self.parts[stage + 1])


def _sendable(outputs: Any) -> Any:
    """Without gaps: a message is memory as it lies, and some layers hand on slices."""
    return tuple(x.contiguous() for x in outputs) if isinstance(outputs, tuple) else outputs


def check_partition(partition: Sequence[int], layers: int) -> None:
    """Raises VdsgenError unless the boundaries rise from 0 to `layers` and every stage holds a block.

    A stage without a block would hand the modulation on without using it, and DeepSpeed asserts a
    gradient for every tensor that it sends back (runtime/pipe/engine.py:1098).
    """
    shown = list(partition)
    if len(shown) < 2 or shown[0] != 0 or shown[-1] != layers:
        raise VdsgenError(f"pipeline.partition must go from 0 to {layers} (the number of layers), is {shown}")
    for stage, (start, stop) in enumerate(pairwise(shown)):
        if min(stop, layers - 1) - max(start, 1) < 1:
            raise VdsgenError(
                f"stage {stage} of pipeline.partition {shown} holds no block: layers {start} to {stop - 1}"
            )


class SequentialModel(nn.Module):
    """All layers in one process: what pipeline_parallel_size 1 trains, with any ZeRO stage."""

    def __init__(
        self,
        layers: Sequence[LayerSpec],
        activation_checkpoint_interval: int,
        loss_fn: LossFunction,
        offload: ActivationOffload | None = None,
        plain_layers: int = 0,
        selective_layers: int = 0,
        codec: Codec | None = None,
    ) -> None:
        super().__init__()
        self.codec = codec
        self.plain_layers = plain_layers
        self.selective_layers = selective_layers
        self.offload = offload
        self.interval = activation_checkpoint_interval
        self.loss_fn = loss_fn
        self.depth = len(layers)
        for index, spec in enumerate(layers):
            self.add_module(str(index), spec.build())

    def forward(self, inputs: Activations, target: Target | None = None) -> Tensor:
        """The prediction (B, C, T, H, W) float32, or with a target the scalar loss."""
        layers = [self.get_submodule(str(index)) for index in range(self.depth)]
        interval = self.interval if torch.is_grad_enabled() else 0
        kept = (self.plain_layers, self.selective_layers, self.codec)
        prediction = run_segments(layers, inputs, interval, self.offload, *kept)
        return prediction if target is None else self.loss_fn(prediction, target)


def run_segments(
    layers: Sequence[nn.Module],
    inputs: Any,
    interval: int,
    offload: ActivationOffload | None = None,
    plain_layers: int = 0,
    selective_layers: int = 0,
    codec: Codec | None = None,
) -> Any:
    """Runs `layers` in order, recomputing each run of `interval` of them in backward (0: none), except in the
    last `plain_layers`. Backward comes to those first: what they hold is free again before anything is
    recomputed. The `selective_layers` before them are segments of one layer each that keep their products
    (selective.py). With `offload`, the other segments' inputs wait for backward in host memory; with `codec`,
    what segments keep waits packed, the loader's latents and what their segment keeps excepted. Segments
    that no backward comes to keep nothing (`reached_by_backward`).

    The same segments as DeepSpeed's PipelineModule.forward (runtime/pipe/module.py:346-396), counted from
    the first layer, the embedding included. The function is torch's, not DeepSpeed's
    non_reentrant_checkpoint: that one recomputes a segment to its end, and under ZeRO-3 the end of a
    module's forward frees the weights that its backward is just about to use.
    """
    if interval == 0:
        return _run(layers, inputs)
    plainly = max(0, len(layers) - plain_layers)
    whole = max(0, plainly - selective_layers)
    segments = [layers[start : min(start + interval, whole)] for start in range(0, whole, interval)]
    # Latents stay as they are: whoever loaded them holds them all the while.
    latents = None if inputs[0].requires_grad else inputs[0]
    x = inputs
    with nullcontext() if offload is None else offload.forward():
        for segment in segments:
            if not reached_by_backward(segment, x):
                x = _run(segment, x)
            elif offload is None or x[0] is latents:
                x = _checkpointed(segment, x, None if x[0] is latents else codec)
            else:
                x = _offloaded(segment, x, offload)
    for start in range(whole, plainly):
        segment = layers[start : start + 1]
        if reached_by_backward(segment, x):
            x = _checkpointed(segment, x, None if x[0] is latents else codec, selective=True)
        else:
            x = _run(segment, x)
    for layer in layers[plainly:]:  # not in a function of its own, during which `x` would live here
        x = layer(x)
    return x


def reached_by_backward(layers: Sequence[nn.Module], inputs: Sequence[Tensor]) -> bool:
    """Whether a backward runs through these layers: something in them trains, or something that they are
    given needs a gradient, as all does that a later stage receives. What they are given is then kept for it,
    gradient or not: adapters behind frozen layers have inputs without.

    vdsgen/cost/stage_tensors.py, `idle_layers`, says the same of a plan."""
    trains = any(parameter.requires_grad for layer in layers for parameter in layer.parameters())
    return trains or any(x.requires_grad for x in inputs)


def _checkpointed(
    segment: Sequence[nn.Module], x: Any, codec: Codec | None, *, selective: bool = False
) -> Any:
    options: dict[str, Any] = {"use_reentrant": False, "preserve_rng_state": False}
    if selective:
        options["context_fn"] = KeptProducts(codec).contexts
    if codec is None:
        return checkpoint(_run, segment, x, **options)
    with codec.first_tensor():
        return checkpoint(_run_on, segment, *x, **options)


def _offloaded(segment: Sequence[nn.Module], x: Any, offload: ActivationOffload) -> Any:
    with offload.segment():
        return checkpoint(_run_on, segment, *x, use_reentrant=False, preserve_rng_state=False)


def _run_on(layers: Sequence[nn.Module], *tensors: Tensor) -> Any:
    """Checkpointing shows hooks those arguments alone that are tensors themselves."""
    return _run(layers, tensors)


def _run(layers: Sequence[nn.Module], x: Any) -> Any:
    for layer in layers:
        x = layer(x)
    return x
