"""Activations of one pipeline stage: what each micro-batch in flight holds, and the peak of backward.

The engine is DeepSpeed's PipelineEngine with one backward from all of a stage's outputs
(model/corrections.py, `backward_pass`), which recomputes segments with DeepSpeed's non-reentrant function;
or a sequential module in one process, with torch's (model/pipeline.py, `run_segments`). Files and lines
are of DeepSpeed 0.19.8, below deepspeed/runtime.

A stage hands on its hidden state and the side tensors that all later layers share (modulation, text
context). Layers' costs come from the profile: `saved` beyond inputs and outputs, `output`, `side`, and
the peaks of temporaries in forward and in backward.

Ignored: timesteps and text embeddings as the loader delivers them (0.5 MB a sample for 128 tokens of
width 1024), and rotary tables, which all layers share.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from vdsgen.cost.schedule import buffers_in_flight
from vdsgen.cost.settings import Settings
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

    @property
    def held(self) -> int:
        """From forward to backward, without checkpointing."""
        return self.saved + self.output + self.side


class StageActivations(NamedTuple):
    """Bytes of activations on one stage."""

    in_flight: int
    """Micro-batches between their forward and their backward."""
    stash_bytes: int
    """What each of them holds."""
    backward_bytes: int
    """What the backward of one of them needs beyond its stash, at its peak: a recomputed segment and
    temporaries."""
    buffer_bytes: int
    """Held all the time: communication buffers, and inputs and targets that the engine keeps."""

    @property
    def peak_bytes(self) -> int:
        return self.in_flight * self.stash_bytes + self.backward_bytes + self.buffer_bytes


def layer_bytes(
    profile: ModelProfile, geometry: Geometry, micro_batch_size: int, dtype: Dtype
) -> tuple[LayerBytes, ...]:
    """Every pipeline layer's bytes for one micro-batch."""
    by_type = {}
    for name, layer in profile.layer_types.items():
        costs = layer.single if dtype == "fp32" else layer.half
        by_type[name] = LayerBytes(
            saved=costs.saved_bytes.at(micro_batch_size, geometry),
            output=costs.output_bytes.at(micro_batch_size, geometry),
            side=costs.side_bytes.at(micro_batch_size, geometry),
            forward_transient=costs.forward_transient_bytes.at(micro_batch_size, geometry),
            backward_transient=costs.backward_transient_bytes.at(micro_batch_size, geometry),
        )
    return tuple(by_type[name] for name in profile.layers)


def stage_activations(
    layers: Sequence[LayerBytes], settings: Settings, stage: int, start: int, stop: int
) -> StageActivations:
    """Activations of the stage that holds the layers start to stop - 1 of `layers`.

    Takes O(stop - start).
    """
    stages = settings.pipeline_parallel_size
    own = layers[start:stop]
    side = sum([layer.side for layer in layers[:stop]])
    received = layers[start - 1].output + side if start else 0
    latents = layers[-1].output  # the prediction, fp32, of the size of the noised latents and the target
    interval = settings.activation_checkpoint_interval

    # What a pipeline's stage receives is held as it came and as the clone that forward works on
    # (pipe/engine.py:703); of the first stage's latents, the engine keeps one copy anyway, and a
    # checkpointed segment the clone. In one process they are an input like any other.
    stash = 2 * received
    if start == 0 and (stages == 1 or interval > 0):
        stash = latents
    if interval == 0:
        stash += sum([layer.held for layer in own])
        backward = _plain_backward(own)
    else:
        ends = [*range(interval - 1, len(own) - 1, interval), len(own) - 1]
        stash += sum([own[end].output for end in ends]) + sum([layer.side for layer in own])
        backward = _checkpointed_backward(own, interval)
    return StageActivations(
        in_flight=buffers_in_flight(stage, stages, settings.gradient_accumulation_steps),
        stash_bytes=stash,
        backward_bytes=backward + side,  # the side tensors' gradients add up while blocks go by
        buffer_bytes=_buffers(layers, settings, start, stop, side, latents),
    )


def _buffers(
    layers: Sequence[LayerBytes], settings: Settings, start: int, stop: int, side: int, latents: int
) -> int:
    """Received activations and received gradients share one set of buffers (pipe/engine.py:1284). The
    engine's slots keep latents on the first stage and targets on the last until they are used again; on
    the last they keep the previous output too (:800 returns before :866 frees it), and through its graph
    what that micro-batch received, with its gradient."""
    if settings.pipeline_parallel_size == 1:
        return latents
    slots = max(2, min(settings.pipeline_parallel_size, settings.gradient_accumulation_steps))
    if start == 0:
        return layers[stop - 1].output + side + slots * latents
    received = layers[start - 1].output + side
    if stop < len(layers):
        return received
    return 3 * received + 2 * 2 * latents


def _plain_backward(own: Sequence[LayerBytes]) -> int:
    """Temporaries of each layer's backward, less what the layers after it have freed by then."""
    peak = freed = 0
    for index in range(len(own) - 1, -1, -1):
        peak = max(peak, own[index].backward_transient - freed)
        freed += own[index].saved + (own[index - 1].output if index else 0)
    return peak


def _checkpointed_backward(own: Sequence[LayerBytes], interval: int) -> int:
    """The most that one segment's recomputation and backward need, less what later segments have freed.

    Segments hold no activations but their inputs.
    """
    peak = freed = need = 0
    before: Sequence[LayerBytes] = ()
    for first in range((len(own) - 1) // interval * interval, -1, -interval):
        segment = own[first : first + interval]
        if segment != before:  # most are equal
            need, before = _segment_bytes(segment), segment
        peak = max(peak, need - freed)
        if first:
            freed += own[first - 1].output  # this segment's input
    return peak


def _segment_bytes(segment: Sequence[LayerBytes]) -> int:
    """Recomputation runs the whole segment and keeps what its layers save
    (activation_checkpointing/checkpointing.py:883-955), beside the gradient of its output."""
    gradient = segment[-1].output
    peak = held = 0
    for layer in segment:
        recomputing = held + layer.held + layer.forward_transient + gradient
        backward = held + layer.saved + layer.backward_transient
        peak = max(peak, recomputing, backward)
        held += layer.held
    return peak
