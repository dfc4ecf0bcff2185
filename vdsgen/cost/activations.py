"""Activations of one pipeline stage: what each micro-batch in flight holds, and the peaks of forward and
backward. `timeline.py` tells the same story moment by moment; this is its maximum, in one pass over layers.

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

from vdsgen.cost.gradients import GradientGrowth
from vdsgen.cost.instructions import pipeline_slots
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


class StageTensors(NamedTuple):
    """What one stage is made of, for one micro-batch; everything else follows from it."""

    own: tuple[LayerBytes, ...]
    """The stage's layers."""
    received_bytes: int
    """Hidden state and side tensors from the stage before; 0 on the first."""
    sent_bytes: int
    """The same to the next stage; 0 on the last."""
    side_bytes: int
    """Side tensors that layers of this stage see."""
    latents_bytes: int
    """The noised latents, the target and the prediction are each of this size (fp32)."""
    slots: int
    """Of the engine's `pipe_buffers`, used in turn; 1 in one process."""
    is_first: bool
    is_last: bool
    is_pipeline: bool

    @property
    def always_bytes(self) -> int:
        """Alive all through the step, whatever runs.

        Received activations and received gradients share one set of buffers unless the gradients are larger
        (`_allocate_or_extend_buffers`, pipe/engine.py:1284), and nothing ever frees it. Slots keep the
        first stage's latents and the last one's targets until they are loaded again (:913, :928). In one
        process the trainer holds its micro-batch's latents and target.
        """
        if not self.is_pipeline:
            return 2 * self.latents_bytes
        buffers = self.received_bytes
        if self.sent_bytes > self.received_bytes:
            buffers += self.sent_bytes
        return buffers + (self.is_first + self.is_last) * self.slots * self.latents_bytes

    @property
    def kept_bytes(self) -> int:
        """What a slot of the last stage keeps of a micro-batch that is done: backward returns before
        it forgets the output (pipe/engine.py:800, :866), and the output's graph holds what the micro-batch
        received, with its gradient."""
        if not (self.is_pipeline and self.is_last):
            return 0
        return 2 * self.received_bytes + self.latents_bytes

    def input_bytes(self, interval: int) -> int:
        """What a micro-batch's input takes from its forward to its backward.

        A stage works on a clone of what it received (pipe/engine.py:703), which is held as well; of the
        latents, which `always_bytes` counts, a pipeline's checkpointed segment holds a clone.
        """
        if self.is_first:
            return self.latents_bytes if self.is_pipeline and interval > 0 else 0
        return 2 * self.received_bytes

    def stash_bytes(self, interval: int) -> int:
        """What a micro-batch holds from its forward to its backward."""
        if interval == 0:
            return self.input_bytes(0) + sum([layer.held for layer in self.own])
        ends = sum([self.own[end].output for end in segment_ends(len(self.own), interval)])
        return self.input_bytes(interval) + ends + sum([layer.side for layer in self.own])

    @property
    def arriving_bytes(self) -> int:
        """The gradient of the stage's output, where it lies in the buffers that are always there."""
        return 0 if self.is_last else self.own[-1].output


def segment_ends(layers: int, interval: int) -> list[int]:
    """Last layer of each checkpoint segment (PipelineModule.forward, pipe/module.py:373)."""
    return [*range(interval - 1, layers - 1, interval), layers - 1]


def stage_tensors(
    layers: Sequence[LayerBytes], settings: Settings, stage: int, start: int, stop: int
) -> StageTensors:
    """The stage that holds the layers start to stop - 1 of `layers`."""
    stages = settings.pipeline_parallel_size
    side = sum([layer.side for layer in layers[:stop]])
    own = tuple(layers[start:stop])
    received = layers[start - 1].output + side - sum([layer.side for layer in own]) if start else 0
    is_last = stop == len(layers)
    return StageTensors(
        own=own,
        received_bytes=received,
        sent_bytes=0 if is_last else own[-1].output + side,
        side_bytes=side,
        latents_bytes=layers[-1].output,
        slots=pipeline_slots(stage, stages, settings.gradient_accumulation_steps) if stages > 1 else 1,
        is_first=start == 0,
        is_last=is_last,
        is_pipeline=stages > 1,
    )


class StageActivations(NamedTuple):
    """Bytes of activations on one stage."""

    in_flight: int
    """Micro-batches between their forward and their backward."""
    stash_bytes: int
    """What each of them holds."""
    forward_bytes: int
    """What the forward of the last of them needs at its peak, its own stash included."""
    backward_bytes: int
    """What the backward of one of them needs beyond its stash, at its peak: a recomputed segment and
    temporaries."""
    first_backward_bytes: int
    """The same for a step's first backward, with the gradients that have appeared by then."""
    buffer_bytes: int
    """Held all the time micro-batches run: communication buffers, and inputs, targets and outputs that the
    engine keeps."""
    idle_bytes: int
    """What of these is still held when gradients are reduced and the optimizer steps."""

    @property
    def peak_bytes(self) -> int:
        """The most beside full gradients, which are there once a pipeline is full and runs on."""
        return self.buffer_bytes + max(
            (self.in_flight - 1) * self.stash_bytes + self.forward_bytes,
            self.in_flight * self.stash_bytes + self.backward_bytes,
        )


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


def with_reduction(layers: Sequence[LayerBytes], momentary: Sequence[int]) -> tuple[LayerBytes, ...]:
    """The layers, where accumulating or reducing their gradients needs more for a moment than the layers
    themselves (`reduction.momentary_bytes`). When a weight's gradient is there, the layer has freed about
    as much as flows."""
    return tuple(
        [
            layer._replace(backward_transient=max(layer.backward_transient, extra))
            for layer, extra in zip(layers, momentary, strict=True)
        ]
    )


def stage_activations(
    layers: Sequence[LayerBytes],
    settings: Settings,
    stage: int,
    start: int,
    stop: int,
    *,
    growth: GradientGrowth | None = None,
) -> StageActivations:
    """Activations of the stage that holds the layers start to stop - 1 of `layers`; with `growth`, what
    backward adds to gradients and buckets is counted with its needs. Takes O(stop - start).
    """
    tensors = stage_tensors(layers, settings, stage, start, stop)
    interval = settings.checkpoint_interval(stage)
    stash = tensors.stash_bytes(interval)
    if growth is None:
        nothing = (0,) * len(tensors.own)
        growth = GradientGrowth(0, nothing, 0, nothing, 0, 0, 0)
    added = Added(growth.first_growth, growth.later_growth)
    if interval == 0:
        backward, first = _plain_backward(tensors, added)
        forward = tensors.input_bytes(0) + _plain_forward(tensors.own)
    else:
        backward, first = _checkpointed_backward(tensors, interval, added, growth)
        forward = stash
    # When the last segment is through, all gradients are there, and the gradient of what was received.
    first = max(first, sum(added.first) + 2 * tensors.received_bytes - stash)
    before = tensors.kept_bytes if tensors.slots > 1 else 0
    return StageActivations(
        in_flight=buffers_in_flight(
            stage, settings.pipeline_parallel_size, settings.gradient_accumulation_steps
        ),
        stash_bytes=stash,
        forward_bytes=forward + tensors.kept_bytes,  # the slot's own last output goes when the new one comes
        backward_bytes=backward,
        first_backward_bytes=first,
        buffer_bytes=tensors.always_bytes + before,
        idle_bytes=tensors.always_bytes + before + tensors.kept_bytes,
    )


def _plain_forward(own: Sequence[LayerBytes]) -> int:
    """The most that the layers hold while they run one after the other."""
    peak = held = 0
    for layer in own:
        held += layer.held
        peak = max(peak, held + layer.forward_transient)
    return peak


class Added(NamedTuple):
    """What backward adds to gradients and buckets by layer: in the step's first, and in later ones."""

    first: Sequence[int]
    later: Sequence[int]


def _plain_backward(tensors: StageTensors, added: Added) -> tuple[int, int]:
    """Temporaries of each layer's backward, less what the layers after it have freed by then: in a later
    backward and in the first, with what has been added by then.

    The side tensors' gradients add up while layers go by. Of the last layer, they and the output's gradient
    lie in the receive buffers.
    """
    own = tensors.own
    peak = first = freed = grown = grown_first = 0
    arriving, side = tensors.arriving_bytes, 0
    for index in range(len(own) - 1, -1, -1):
        layer = own[index]
        need = max(0, layer.backward_transient - arriving) + side - freed
        peak, first = max(peak, need + grown), max(first, need + grown_first)
        freed += layer.saved + (own[index - 1].output if index else 0)
        grown += added.later[index]
        grown_first += added.first[index]
        arriving, side = 0, tensors.side_bytes
    return peak, first


def _checkpointed_backward(
    tensors: StageTensors, interval: int, added: Added, growth: GradientGrowth
) -> tuple[int, int]:
    """The most that one segment's recomputation and backward need, less what later segments have freed: in a
    later backward and in the first, with what has been added by then.

    Segments hold no activations but their inputs.
    """
    own = tensors.own
    peak = first = freed = grown = grown_first = 0
    arriving, side = tensors.arriving_bytes, 0
    need = need_first = 0
    before = None
    for begin in range((len(own) - 1) // interval * interval, -1, -interval):
        end = begin + interval
        part = Added(added.first[begin:end], added.later[begin:end])
        segment = (own[begin:end], part, arriving, side)
        if segment != before:  # most are equal
            need, need_first = _segment_bytes(*segment)
            before = segment
        beside = (growth.segment_bytes(begin, end) if growth.gathered_by_layer else 0) - freed
        peak = max(peak, need + beside + grown)
        first = max(first, need_first + beside + grown_first)
        grown += sum(part.later)
        grown_first += sum(part.first)
        arriving, side = 0, tensors.side_bytes
        if begin:
            freed += own[begin - 1].output  # this segment's input
    return peak, first


def _segment_bytes(segment: Sequence[LayerBytes], added: Added, arriving: int, side: int) -> tuple[int, int]:
    """Recomputation runs the whole segment and keeps what its layers save
    (activation_checkpointing/checkpointing.py:883-955), beside the gradient of its output. In a later
    backward and in the first, with what the segment's own layers add."""
    gradient = segment[-1].output - arriving
    peak = first = held = 0
    grown, grown_first = sum(added.later), sum(added.first)
    last = len(segment) - 1
    for index, layer in enumerate(segment):
        recomputing = held + layer.held + layer.forward_transient + gradient + side
        transient = layer.backward_transient
        if index == last:
            transient = max(0, transient - arriving)
        grown -= added.later[index]
        grown_first -= added.first[index]
        backward = held + layer.saved + transient + side
        peak = max(peak, recomputing, backward + grown)
        first = max(first, recomputing, backward + grown_first)
        held += layer.held
    return peak, first
