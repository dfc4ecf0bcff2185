"""Which tensors one pipeline stage holds of a micro-batch, and where the engine holds each.

Files and lines are of DeepSpeed 0.19.8, below deepspeed/runtime.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from vdsgen.cost.instructions import pipeline_slots
from vdsgen.cost.layer_bytes import LayerBytes
from vdsgen.cost.settings import Settings


class StageTensors(NamedTuple):
    """What one stage is made of, for one micro-batch; everything else follows from it."""

    own: tuple[LayerBytes, ...]
    """The stage's layers."""
    received_bytes: int
    """Hidden state and side tensors from the stage before; 0 on the first."""
    received_hidden_bytes: int
    """The hidden state alone."""
    received_packed_bytes: int
    """The hidden state, packed."""
    sent_bytes: int
    """The same to the next stage; 0 on the last."""
    side_bytes: int
    """Side tensors that layers of this stage see."""
    latents_bytes: int
    """The noised latents, the target and the prediction are each of this size (fp32)."""
    slots: int
    """Of the engine's `pipe_buffers`, used in turn; 1 in one process."""
    segments: tuple[tuple[int, int], ...]
    """Checkpoint segments that are recomputed whole: the first of each one's layers, and one past its last,
    of the stage's own."""
    idle: int
    """Layers before those, in segments that no backward comes to: nothing is kept for them."""
    plain_from: int
    """Layers from this one on run plainly. Those between the last segment and it are segments of one layer
    each that keep their products."""
    is_first: bool
    is_last: bool
    is_pipeline: bool
    packs: bool
    """Whether recomputed segments keep their hidden states packed."""
    constant_bytes: int
    """What the stage's layers share and made once, whatever runs (rotary tables)."""
    crossing_bytes: int
    """Hidden states that were put aside within a checkpoint segment and outlive it."""
    borrowed_bytes: int
    """Of what the stage works on, what its first layer runs plainly on and does not save: there until the
    whole forward is through."""

    @property
    def always_bytes(self) -> int:
        """Alive all through the step, whatever runs.

        Received activations and received gradients share one set of buffers unless the gradients are larger
        (`_allocate_or_extend_buffers`, pipe/engine.py:1284), and nothing ever frees it. Slots keep the
        first stage's latents and the last one's targets until they are loaded again (:913, :928). In one
        process the trainer holds its micro-batch's latents and target.
        """
        if not self.is_pipeline:
            return 2 * self.latents_bytes + self.constant_bytes
        buffers = self.received_bytes + self.constant_bytes
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
        """How many of the stage's first layers are recomputed whole."""
        return self.segments[-1][1] if self.segments else self.idle

    @property
    def input_bytes(self) -> int:
        """What a micro-batch's input takes from its forward to its backward.

        A stage works on a clone of what it received (pipe/engine.py:703), which is held as well, as far as
        its first layer saves it; of the latents, which `always_bytes` counts, a pipeline's checkpointed
        segment holds a clone.
        """
        if self.is_first:
            return self.latents_bytes if self.is_pipeline and self.plain_from > self.idle == 0 else 0
        return 2 * self.received_bytes

    def stash_bytes(self, *, offload: bool = False) -> int:
        """What a micro-batch holds from its forward to its backward."""
        checkpointed = self.checkpointed
        stash = self.input_bytes + sum([layer.held for layer in self.own[self.plain_from :]])
        stash += sum([layer.selective_held for layer in self.own[checkpointed : self.plain_from]])
        stash += sum([self.own[end - 1].output for _, end in self.segments]) + self.idle_output_bytes
        stash += sum([layer.side for layer in self.own[:checkpointed]]) + self.crossing_bytes
        if self.packs:
            stash -= sum([self.hidden_bytes(begin) - self.packed_bytes(begin) for begin in self.begins])
        return stash - self.offloaded_bytes if offload else stash

    @property
    def idle_output_bytes(self) -> int:
        """What the idle layers hand to those that a backward comes to, which is kept for it."""
        if not self.idle:
            return 0
        last = self.own[self.idle - 1]
        return last.output + last.waiting

    @property
    def begins(self) -> list[int]:
        """Of all that is recomputed: first layers of segments, and selective layers."""
        return [begin for begin, _ in self.segments] + list(range(self.checkpointed, self.plain_from))

    def packed_bytes(self, begin: int) -> int:
        """What the hidden state that layer `begin` is given takes from forward to backward."""
        if not self.packs:
            return self.hidden_bytes(begin)
        return self.own[begin - 1].packed_output if begin else self.received_packed_bytes

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


def idle_layers(segments: Sequence[tuple[int, int]], plain_from: int, trains: Sequence[bool]) -> int:
    """How many of a model's first layers are in segments that no backward comes to, since nothing in them
    trains, nor in any before them (model/pipeline.py, `reached_by_backward`). Layers from the last segment to
    `plain_from` are segments of their own. On later stages it comes to all: what a stage receives needs a
    gradient."""
    first = next((index for index, one in enumerate(trains) if one), len(trains))
    whole = segments[-1][1] if segments else 0
    if first >= whole:
        return min(first, plain_from)
    return max([end for _, end in segments if end <= first], default=0)


def stage_tensors(
    layers: Sequence[LayerBytes], settings: Settings, stage: int, start: int, stop: int
) -> StageTensors:
    """The stage that holds the layers start to stop - 1 of `layers`."""
    stages = settings.pipeline_parallel_size
    side = sum([layer.side for layer in layers[:stop]])
    received = 0
    if start:
        before = layers[start - 1]
        received = before.output + before.waiting + side - sum([layer.side for layer in layers[start:stop]])
    is_last = stop == len(layers)
    segments = checkpoint_segments(
        settings.whole_layers(stage, stop - start), settings.checkpoint_interval(stage)
    )
    plain_from = settings.checkpointed_layers(stage, stop - start)
    own = layers[start:stop]
    idle = borrowed = 0
    if start == 0:
        own = _without_idle_inputs(own)
        idle = idle_layers(segments, plain_from, [layer.trains for layer in own])
    elif plain_from == 0:
        borrowed = own[0].unsaved_input
    own = _letting_inputs_go(own, segments, plain_from, borrowed)
    segments = tuple([(begin, end) for begin, end in segments if end > idle])
    return StageTensors(
        own=own,
        received_bytes=received,
        received_hidden_bytes=layers[start - 1].output if start else 0,
        received_packed_bytes=layers[start - 1].packed_output if start else 0,
        sent_bytes=0 if is_last else own[-1].output + own[-1].waiting + side,
        side_bytes=side,
        latents_bytes=layers[-1].output,
        slots=pipeline_slots(stage, stages, settings.gradient_accumulation_steps) if stages > 1 else 1,
        segments=segments,
        idle=idle,
        plain_from=plain_from,
        is_first=start == 0,
        is_last=is_last,
        is_pipeline=stages > 1,
        packs=settings.packs,
        constant_bytes=max([layer.constant for layer in own]),
        crossing_bytes=sum([_crossing_bytes(layers, start + begin, start + end) for begin, end in segments]),
        borrowed_bytes=borrowed,
    )


def _without_idle_inputs(first: Sequence[LayerBytes]) -> list[LayerBytes]:
    """Of the first stage: no backward comes to the layers before the first that trains, so that of what they
    are given they keep nothing but what waits to be joined."""
    found = list(first)
    for index, layer in enumerate(first):
        if layer.trains:
            break
        if index and layer.waiting <= first[index - 1].waiting:
            found[index] = layer._replace(unsaved_input=first[index - 1].output)
    return found


def _letting_inputs_go(
    own: Sequence[LayerBytes], segments: Sequence[tuple[int, int]], plain_from: int, borrowed: int
) -> tuple[LayerBytes, ...]:
    """A stage's layers; checkpoints keep the inputs of all segments, and nobody those of other layers:
    `borrowed` of the first one's is the caller's while the forward runs."""
    whole = segments[-1][1] if segments else 0
    kept = {begin for begin, _ in segments} | set(range(whole, plain_from))
    found = [layer if index in kept else layer.letting_input_go() for index, layer in enumerate(own)]
    if borrowed:
        found[0] = found[0]._replace(forward_transient=own[0].forward_transient)
    return tuple(found)


def _crossing_bytes(layers: Sequence[LayerBytes], begin: int, end: int) -> int:
    """Of the layers begin to end - 1: hidden states made within and put aside for later ones. What the first
    puts aside is the segment's own input, which is there as the output of the one before."""
    return max(0, layers[end - 1].waiting - layers[begin].waiting)
