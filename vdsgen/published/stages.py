"""A decoder's activations on one pipeline stage, for frameworks that checkpoint block by block.

What DeepSpeed's own pipeline holds is in vdsgen/cost/activations.py; this file says what differs elsewhere:
embedding and head lie outside checkpoints, and what crosses a stage boundary is held in another way. The
bytes of layers, and of one segment's recomputation, are the cost functions' there.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

from vdsgen.cost.activations import stage_activations
from vdsgen.cost.layer_bytes import LayerBytes
from vdsgen.cost.schedule import buffers_in_flight
from vdsgen.cost.settings import Settings

Boundary = Literal["kept", "freed", "sharded"]
"""What a stage's output is after it was sent: still there (Megatron-LM of 2021), freed but for its graph
(megatron/core/pipeline_parallel/schedules.py, deallocate_output_tensor), or replaced by one tensor-parallel
rank's share (DeepSpeed, runtime/pipe/engine.py, is_pipe_partitioned)."""
DEEPSPEED_SLOTS = 2
"""Pipeline buffers that DeepSpeed's last stage has at least (runtime/pipe/schedule.py, num_pipe_buffers)."""


class Layers(NamedTuple):
    """A decoder's kinds of layers, for one micro-batch."""

    embed: LayerBytes
    block: LayerBytes
    final: LayerBytes
    logits_bytes: int
    """What the head hands to the loss."""
    kept_bytes: int = 0
    """Of each checkpointed block, what is kept beside its input."""


class Stage(NamedTuple):
    """One stage of a decoder."""

    number: int
    blocks: int
    first: bool
    last: bool


class Activations(NamedTuple):
    """Bytes on the stage."""

    in_flight: int
    stash_bytes: int
    """What each micro-batch in flight holds."""
    backward_bytes: int
    """What one backward needs beyond that."""
    buffer_bytes: int
    """Held all the time, the optimizer's step included."""


def activations(
    stage: Stage, layers: Layers, settings: Settings, boundary: Boundary, tensor_parallel: int
) -> Activations:
    """With settings.activation_checkpoint_interval above 0, each block is a checkpoint of its own."""
    hidden = layers.block.output
    sent = {"kept": hidden, "freed": 0, "sharded": hidden // tensor_parallel}[boundary]
    if settings.activation_checkpoint_interval > 0:
        # Each block's input, one of which was received or is the embedding's output; and the last output.
        stash = (hidden + layers.kept_bytes) * stage.blocks + (layers.embed.saved if stage.first else 0)
        stash += hidden + layers.final.held if stage.last else sent
    else:
        stash = layers.block.held * stage.blocks - (0 if stage.last else hidden - sent)
        stash += layers.embed.held if stage.first else hidden
        stash += layers.final.held if stage.last else 0
    buffers = 0
    if settings.pipeline_parallel_size > 1:
        buffers = 2 * hidden  # what was received last, and the gradient that was
        if boundary == "sharded" and stage.last:
            buffers += DEEPSPEED_SLOTS * layers.logits_bytes  # outputs stay until their slot is used again
    return Activations(
        in_flight=buffers_in_flight(
            stage.number, settings.pipeline_parallel_size, settings.gradient_accumulation_steps
        ),
        stash_bytes=stash,
        backward_bytes=_backward_bytes(stage, layers, settings),
        buffer_bytes=buffers,
    )


def _backward_bytes(stage: Stage, layers: Layers, settings: Settings) -> int:
    """The most that backward needs at a time beyond the stash: the head's, then a block's, then the
    embedding's, each less what was freed before it."""
    checkpointed = settings.activation_checkpoint_interval > 0
    needs, freed = [0], 0
    if stage.last:
        needs.append(layers.final.backward_transient)
        freed = layers.final.held
    if stage.blocks:
        need = _segment(layers.block, settings) if checkpointed else layers.block.backward_transient
        needs.append(need - freed)
        freed += stage.blocks * (
            layers.block.output + layers.kept_bytes if checkpointed else layers.block.held
        )
    if stage.first:
        needs.append(layers.embed.backward_transient - freed)
    return max(needs)


def _segment(block: LayerBytes, settings: Settings) -> int:
    """One block's recomputation and backward."""
    alone = settings._replace(pipeline_parallel_size=1, activation_checkpoint_interval=1)
    return stage_activations([block], alone, 0, 0, 1).backward_bytes
