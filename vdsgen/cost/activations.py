"""Activations of one pipeline stage: what each micro-batch in flight holds, and the peaks of forward and
backward. `timeline.py` tells the same story moment by moment; this is its maximum, in one pass over layers.

The engine is DeepSpeed's PipelineEngine with one backward from all of a stage's outputs
(model/corrections.py, `backward_pass`), which recomputes segments with DeepSpeed's non-reentrant function;
or a sequential module in one process, with torch's (model/pipeline.py, `run_segments`). Files and lines
are of DeepSpeed 0.19.8, below deepspeed/runtime.

A stage hands on its hidden state and the side tensors that all later layers share (modulation, text
context). Layers' costs come from the profile: `saved` beyond inputs and outputs, `output`, `side`, and
the peaks of temporaries in forward and in backward.

A stage that checkpoints may leave out its last layers (`Settings.stage_plain_layers`): their backward comes
first, so that what they hold is free before anything is recomputed.

With `offload_activations` each segment's hidden state goes to host memory while the segment runs forward, and
comes back one segment ahead of backward (model/activation_offload.py).

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
    received_hidden_bytes: int
    """The hidden state alone."""
    sent_bytes: int
    """The same to the next stage; 0 on the last."""
    side_bytes: int
    """Side tensors that layers of this stage see."""
    latents_bytes: int
    """The noised latents, the target and the prediction are each of this size (fp32)."""
    slots: int
    """Of the engine's `pipe_buffers`, used in turn; 1 in one process."""
    segments: tuple[tuple[int, int], ...]
    """Checkpoint segments: the first of each one's layers, and one past its last, of the stage's own. Layers
    after the last segment run plainly."""
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

    @property
    def checkpointed(self) -> int:
        """How many of the stage's first layers are recomputed."""
        return self.segments[-1][1] if self.segments else 0

    @property
    def input_bytes(self) -> int:
        """What a micro-batch's input takes from its forward to its backward.

        A stage works on a clone of what it received (pipe/engine.py:703), which is held as well; of the
        latents, which `always_bytes` counts, a pipeline's checkpointed segment holds a clone.
        """
        if self.is_first:
            return self.latents_bytes if self.is_pipeline and self.segments else 0
        return 2 * self.received_bytes

    def stash_bytes(self, *, offload: bool = False) -> int:
        """What a micro-batch holds from its forward to its backward."""
        checkpointed = self.checkpointed
        stash = self.input_bytes + sum([layer.held for layer in self.own[checkpointed:]])
        stash += sum([self.own[end - 1].output for _, end in self.segments])
        stash += sum([layer.side for layer in self.own[:checkpointed]])
        return stash - self.offloaded_bytes if offload else stash

    def hidden_bytes(self, begin: int) -> int:
        """What leaves the device of the input of a segment that begins with the stage's layer `begin`: its
        hidden state. Latents stay: slots hold them anyway, and a clone of them is small."""
        return self.own[begin - 1].output if begin else self.received_hidden_bytes

    @property
    def offloaded_bytes(self) -> int:
        """What a micro-batch has in host memory from its forward to its backward."""
        return sum([self.hidden_bytes(begin) for begin, _ in self.segments])

    @property
    def arriving_bytes(self) -> int:
        """The gradient of the stage's output, where it lies in the buffers that are always there."""
        return 0 if self.is_last else self.own[-1].output


def checkpoint_segments(layers: int, interval: int) -> tuple[tuple[int, int], ...]:
    """First layer of each checkpoint segment of so many layers, and one past its last
    (PipelineModule.forward, pipe/module.py:373)."""
    if interval == 0:
        return ()
    return tuple([(begin, min(begin + interval, layers)) for begin in range(0, layers, interval)])


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
        received_hidden_bytes=layers[start - 1].output if start else 0,
        sent_bytes=0 if is_last else own[-1].output + side,
        side_bytes=side,
        latents_bytes=layers[-1].output,
        slots=pipeline_slots(stage, stages, settings.gradient_accumulation_steps) if stages > 1 else 1,
        segments=checkpoint_segments(
            settings.checkpointed_layers(stage, stop - start), settings.checkpoint_interval(stage)
        ),
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
    host_bytes: int
    """In host memory, of all micro-batches in flight: buffers that are never freed."""

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
    without_recomputation: bool = False,
) -> StageActivations:
    """Activations of the stage that holds the layers start to stop - 1 of `layers`; with `growth`, what
    backward adds to gradients and buckets is counted with its needs. `without_recomputation`, what segments
    need in backward is left out. Takes O(stop - start).
    """
    tensors = stage_tensors(layers, settings, stage, start, stop)
    offload = settings.offload_activations and bool(tensors.segments)
    stash = tensors.stash_bytes(offload=offload)
    if growth is None:
        nothing = (0,) * len(tensors.own)
        growth = GradientGrowth(0, nothing, 0, nothing, 0, 0, 0)
    backward, first = _backward(tensors, growth, offload=offload, to_the_end=not without_recomputation)
    forward = _forward(tensors, offload=offload)
    # When the last segment is through, all gradients are there, and the gradient of what was received.
    first = max(first, sum(growth.first_growth) + 2 * tensors.received_bytes - stash)
    before = tensors.kept_bytes if tensors.slots > 1 else 0
    in_flight = buffers_in_flight(
        stage, settings.pipeline_parallel_size, settings.gradient_accumulation_steps
    )
    return StageActivations(
        in_flight=in_flight,
        stash_bytes=stash,
        forward_bytes=forward + tensors.kept_bytes,  # the slot's own last output goes when the new one comes
        backward_bytes=backward,
        first_backward_bytes=first,
        buffer_bytes=tensors.always_bytes + before,
        idle_bytes=tensors.always_bytes + before + tensors.kept_bytes,
        host_bytes=in_flight * tensors.offloaded_bytes if offload else 0,
    )


def _forward(tensors: StageTensors, *, offload: bool) -> int:
    """The most that a micro-batch holds while its layers run one after the other; checkpointed ones save
    nothing."""
    own, checkpointed = tensors.own, tensors.checkpointed
    peak = held = tensors.input_bytes
    if offload:
        peak, held = _offloading_forward(tensors)
    else:
        held += sum([own[end - 1].output for _, end in tensors.segments])
        held += sum([layer.side for layer in own[:checkpointed]])
        peak = held
    for layer in own[checkpointed:]:
        held += layer.held
        peak = max(peak, held + layer.forward_transient)
    return peak


def _offloading_forward(tensors: StageTensors) -> tuple[int, int]:
    """The most that a micro-batch holds while its segments run, and what it holds after the last: a segment's
    input goes only when its copy is down, at the segment's end, and the stage's own input when the whole
    forward is through."""
    own = tensors.own
    peak = held = tensors.input_bytes
    for begin, end in tensors.segments:
        held += sum([layer.side for layer in own[begin:end]])
        arrived = tensors.hidden_bytes(begin) if begin else 0  # the first one is in `input_bytes`
        peak = max(peak, held + arrived + own[end - 1].output)
    return peak, held + own[tensors.checkpointed - 1].output


class Added(NamedTuple):
    """What backward adds to gradients and buckets by layer: in the step's first, and in later ones."""

    first: Sequence[int]
    later: Sequence[int]


class _Backward(NamedTuple):
    """How far a micro-batch's backward has come, from the last layer on."""

    peak: int
    """The most beyond the stash, in a later backward."""
    first: int
    """The same in a step's first."""
    freed: int
    """Of the stash."""
    grown: int
    """Gradients and buckets, in a later backward."""
    grown_first: int
    arriving: int
    """Of the gradient of what is next, how much lies in the receive buffers."""
    side: int
    """Gradients of the side tensors, which add up while layers go by. Of the last layer they lie in the
    receive buffers."""


def _backward(
    tensors: StageTensors, growth: GradientGrowth, *, offload: bool, to_the_end: bool
) -> tuple[int, int]:
    """The most that a later backward and the first need beyond the stash, with what they have added by then:
    first of the plain layers, then (`to_the_end`) of the segments."""
    added = Added(growth.first_growth, growth.later_growth)
    state = _plain_backward(tensors, added, _Backward(0, 0, 0, 0, 0, tensors.arriving_bytes, 0))
    if tensors.segments and to_the_end:
        state = _checkpointed_backward(tensors, added, growth, state, offload=offload)
    return state.peak, state.first


def _plain_backward(tensors: StageTensors, added: Added, state: _Backward) -> _Backward:
    """Temporaries of each layer's backward, less what the layers after it have freed by then."""
    own = tensors.own
    peak, first, freed, grown, grown_first, arriving, side = state
    for index in range(len(own) - 1, tensors.checkpointed - 1, -1):
        layer = own[index]
        need = max(0, layer.backward_transient - arriving) + side - freed
        peak, first = max(peak, need + grown), max(first, need + grown_first)
        freed += layer.saved + (own[index - 1].output if index else 0)
        grown += added.later[index]
        grown_first += added.first[index]
        arriving, side = 0, tensors.side_bytes
    return _Backward(peak, first, freed, grown, grown_first, arriving, side)


def _checkpointed_backward(
    tensors: StageTensors, added: Added, growth: GradientGrowth, state: _Backward, *, offload: bool
) -> _Backward:
    """The most that one segment's recomputation and backward need, less what later layers have freed.

    Segments hold no activations but their inputs. With `offload` these come back: the segment's own, and
    that of the next to be recomputed.
    """
    own = tensors.own
    peak, first, freed, grown, grown_first, arriving, side = state
    need = need_first = 0
    before = None
    for place in reversed(range(len(tensors.segments))):
        begin, end = tensors.segments[place]
        part = Added(added.first[begin:end], added.later[begin:end])
        segment = (own[begin:end], part, arriving, side)
        if segment != before:  # most are equal
            need, need_first = _segment_bytes(*segment)
            before = segment
        beside = (growth.segment_bytes(begin, end) if growth.gathered_by_layer else 0) - freed
        if offload:
            beside += tensors.hidden_bytes(begin)
            beside += tensors.hidden_bytes(tensors.segments[place - 1][0]) if place else 0
        peak = max(peak, need + beside + grown)
        first = max(first, need_first + beside + grown_first)
        grown += sum(part.later)
        grown_first += sum(part.first)
        arriving, side = 0, tensors.side_bytes
        if begin and not offload:
            freed += own[begin - 1].output  # this segment's input
    return _Backward(peak, first, freed, grown, grown_first, arriving, side)


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
