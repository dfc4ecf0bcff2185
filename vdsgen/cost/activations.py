"""Activations of one pipeline stage: what is in flight, and the peak while it is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from vdsgen.cost.settings import Settings
from vdsgen.spec.architecture import Geometry
from vdsgen.spec.profile import LayerCosts, ModelProfile


@dataclass(frozen=True, slots=True)
class LayerBytes:
    """One layer's activation bytes at one micro-batch size, evaluated."""

    saved: int
    output: int
    side: int
    forward_transient: int
    backward_transient: int


def in_flight(stage: int, settings: Settings) -> int:
    """Micro-batches whose activations a stage holds at once under 1F1B (runtime/pipe/schedule.py:247)."""
    return min(settings.pipeline_parallel_size - stage, settings.gradient_accumulation_steps)


def layer_bytes(profile: ModelProfile, geometry: Geometry, settings: Settings) -> tuple[LayerBytes, ...]:
    """Every layer's bytes for one micro-batch."""
    by_type = {
        name: _evaluate(_costs(profile, name, settings), settings.micro_batch_size, geometry)
        for name in profile.layer_types
    }
    return tuple(by_type[name] for name in profile.layers)


def _costs(profile: ModelProfile, name: str, settings: Settings) -> LayerCosts:
    layer = profile.layer_types[name]
    return layer.half if settings.element_bytes == 2 else layer.single


def _evaluate(costs: LayerCosts, micro_batch_size: int, geometry: Geometry) -> LayerBytes:
    return LayerBytes(
        saved=round(costs.saved_bytes.at(micro_batch_size, geometry)),
        output=round(costs.output_bytes.at(micro_batch_size, geometry)),
        side=round(costs.side_bytes.at(micro_batch_size, geometry)),
        forward_transient=round(costs.forward_transient_bytes.at(micro_batch_size, geometry)),
        backward_transient=round(costs.backward_transient_bytes.at(micro_batch_size, geometry)),
    )


def activation_bytes(layers: Sequence[LayerBytes], stage: int, span: range, settings: Settings) -> int:
    """Peak bytes of activations of a stage that holds the layers `span`. First version."""
    side = sum(layer.side for layer in layers[: span.stop])
    received = 0 if span.start == 0 else layers[span.start - 1].output + side
    interval = settings.activation_checkpoint_interval
    own = [layers[index] for index in span]
    everything = sum(layer.saved + layer.output for layer in own)
    if interval == 0:
        stash, recomputed = everything, 0
    else:
        segments = [own[start : start + interval] for start in range(0, len(own), interval)]
        stash = sum(segment[-1].output for segment in segments)
        recomputed = max(sum(layer.saved + layer.output for layer in segment) for segment in segments)
    transient = max(max(layer.forward_transient, layer.backward_transient) for layer in own)
    return in_flight(stage, settings) * (2 * received + stash) + recomputed + transient
