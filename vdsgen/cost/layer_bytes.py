"""Bytes of one pipeline layer's activations for one micro-batch, from the profile."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from vdsgen.spec.architecture import Geometry
from vdsgen.spec.experiment import Dtype
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

    @property
    def held(self) -> int:
        """From forward to backward, without checkpointing."""
        return self.saved + self.output + self.side

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
        )
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
    return tuple(by_type[name] for name in profile.layers)


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
