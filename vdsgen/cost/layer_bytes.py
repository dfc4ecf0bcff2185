"""Bytes of one pipeline layer's activations for one micro-batch, from the profile."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from vdsgen.spec.architecture import Geometry
from vdsgen.spec.dtypes import Dtype
from vdsgen.spec.profile import ModelProfile


class LayerBytes(NamedTuple):
    """One layer's bytes for one micro-batch."""

    saved: int
    output: int
    side: int
    forward_transient: int
    backward_transient: int
    selective_saved: int = 0
    """Where the layer is recomputed but for its products: what these put out."""
    selective_recomputed: int = 0
    """What recomputation then adds to that."""
    selective_forward_transient: int = 0
    selective_peak: int = 0
    """Of recomputation and backward, beyond what was saved."""
    packed_output: int = 0
    """What `output` takes where it waits for backward packed, as a segment's input."""
    constant: int = 0
    """What follows from shapes alone: there once for all of a stage's layers that need it."""
    waiting: int = 0
    """Hidden states of earlier layers that later ones join, once this layer has run."""
    unsaved_input: int = 0
    """Of the hidden state that the layer is given, what it does not save."""
    trains: bool = True
    """Whether anything in it does."""

    @property
    def held(self) -> int:
        """From forward to backward, without checkpointing."""
        return self.saved + self.output + self.side

    @property
    def needs(self) -> tuple[int, ...]:
        """What memory rises with."""
        return (*self._replace(unsaved_input=0), self.saved - self.unsaved_input)

    def letting_input_go(self) -> LayerBytes:
        """The same layer where nothing else keeps its input: what it does not save of it is there while the
        layer runs forward, and gone after that."""
        gone = self.unsaved_input
        if not gone:
            return self
        return self._replace(
            saved=self.saved - gone, forward_transient=self.forward_transient + gone, unsaved_input=0
        )

    @property
    def selective_held(self) -> int:
        """The same where the layer keeps its products alone."""
        return self.selective_saved + self.output + self.side


def layer_bytes(
    profile: ModelProfile, geometry: Geometry, micro_batch_size: int, dtype: Dtype, *, packed: bool = False
) -> tuple[LayerBytes, ...]:
    """Every pipeline layer's bytes for one micro-batch; `packed`: where what checkpointing keeps is. Raises
    ValueError where that was not traced."""
    by_type = {}
    for name, layer in profile.layer_types.items():
        costs = layer.single if dtype == "fp32" else layer.half
        found = LayerBytes(
            saved=costs.saved_bytes.at(micro_batch_size, geometry),
            output=costs.output_bytes.at(micro_batch_size, geometry),
            side=costs.side_bytes.at(micro_batch_size, geometry),
            forward_transient=costs.forward_transient_bytes.at(micro_batch_size, geometry),
            backward_transient=costs.backward_transient_bytes.at(micro_batch_size, geometry),
            constant=0
            if costs.constant_bytes is None
            else costs.constant_bytes.at(micro_batch_size, geometry),
            trains=layer.trainable_parameters > 0,
        )
        if costs.unsaved_input_bytes is not None and layer.skips <= 0:  # else it waits to be joined
            found = found._replace(unsaved_input=costs.unsaved_input_bytes.at(micro_batch_size, geometry))
        kept = costs.selective
        if packed:
            if costs.packed is None:
                raise ValueError(f"no trace of packed activations of {name}")
            kept = costs.packed.selective
            found = found._replace(packed_output=costs.packed.output_bytes.at(micro_batch_size, geometry))
        if kept is not None:
            found = found._replace(
                selective_saved=kept.saved_bytes.at(micro_batch_size, geometry),
                selective_recomputed=kept.recomputed_bytes.at(micro_batch_size, geometry),
                selective_forward_transient=kept.forward_transient_bytes.at(micro_batch_size, geometry),
                selective_peak=kept.peak_bytes.at(micro_batch_size, geometry),
            )
        by_type[name] = found
    layers = tuple(by_type[name] for name in profile.layers)
    if not any(layer.skips for layer in profile.layer_types.values()):
        return layers
    outputs = [layer.output for layer in layers]
    waiting = waiting_bytes(profile, outputs)
    return tuple(layer._replace(waiting=size) for layer, size in zip(layers, waiting, strict=True))


def waiting_bytes(profile: ModelProfile, outputs: Sequence[int]) -> list[int]:
    """Of a U-Net: after each layer, the hidden states that were put aside and not yet joined. `outputs` are
    the layers' own hidden states."""
    aside: list[int] = []
    found = []
    for index, name in enumerate(profile.layers):
        skips = profile.layer_types[name].skips
        if skips > 0:
            aside.append(outputs[index - 1])
        elif skips < 0:
            aside.pop()
        found.append(sum(aside))
    return found


def with_reduction(layers: Sequence[LayerBytes], momentary: Sequence[int]) -> tuple[LayerBytes, ...]:
    """The layers, where accumulating or reducing their gradients needs more for a moment than the layers
    themselves (`reduction.momentary_bytes`). When a weight's gradient is there, the layer has freed about
    as much as flows."""
    return tuple(
        [
            layer._replace(
                backward_transient=max(layer.backward_transient, extra),
                selective_peak=max(layer.selective_peak, layer.selective_recomputed + extra),
            )
            for layer, extra in zip(layers, momentary, strict=True)
        ]
    )
