"""A decoder's activations on one pipeline stage, for frameworks that checkpoint block by block.

What DeepSpeed's own pipeline holds is in vdsgen/cost/activations.py; this file says what differs elsewhere:
embedding and head lie outside checkpoints, and what crosses a stage boundary is held in another way. The
bytes of layers, and of one segment's recomputation, are the cost functions' there.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

from vdsgen.cost.activations import LayerBytes, StageActivations, stage_activations
from vdsgen.cost.schedule import buffers_in_flight
from vdsgen.cost.settings import Settings

Boundary = Literal["kept", "freed", "sharded"]
"""What a stage's output is after it was sent: still there (Megatron-LM of 2021), freed but for its graph
(megatron/core/pipeline_parallel/schedules.py, deallocate_output_tensor), or replaced by one tensor-parallel
rank's share (DeepSpeed, runtime/pipe/engine.py, is_pipe_partitioned)."""


class Stage(NamedTuple):
    """One stage of a decoder."""

    index: int
    blocks: int
    first: bool
    last: bool


def activations(
    stage: Stage,
    kinds: dict[str, LayerBytes],
    settings: Settings,
    boundary: Boundary,
    tensor_parallel: int,
) -> StageActivations:
    """Bytes on the stage. `kinds` holds the bytes of embed, block and final."""
    block, checkpointed = kinds["block"], settings.activation_checkpoint_interval > 0
    hidden = block.output
    own = [*([kinds["embed"]] if stage.first else []), *[block] * stage.blocks]
    own += [kinds["final"]] if stage.last else []
    sent = {"kept": hidden, "freed": 0, "sharded": hidden // tensor_parallel}[boundary]
    received = 0 if stage.first else hidden
    if checkpointed:
        # Each block keeps its input: what was received or the embedding's output, and all outputs but the last.
        stash = hidden * stage.blocks + (kinds["embed"].saved if stage.first else 0)
        stash += hidden + kinds["final"].held if stage.last else sent
    else:
        stash = received + sum(layer.held for layer in own) - (0 if stage.last else hidden - sent)
    return StageActivations(
        in_flight=buffers_in_flight(
            stage.index, settings.pipeline_parallel_size, settings.gradient_accumulation_steps
        ),
        stash_bytes=stash,
        backward_bytes=_backward_bytes(stage, kinds, settings, checkpointed),
        buffer_bytes=0 if settings.pipeline_parallel_size == 1 else 2 * hidden,
    )


def _backward_bytes(
    stage: Stage, kinds: dict[str, LayerBytes], settings: Settings, checkpointed: bool
) -> int:
    """The most that backward needs at a time beyond the stash: the head's, then a block's, then the embedding's,
    each less what was freed before it."""
    alone = settings._replace(pipeline_parallel_size=1)
    needs, freed = [], 0
    if stage.last:
        needs.append(kinds["final"].backward_transient)
        freed = kinds["final"].held
    if stage.blocks:
        one = alone._replace(activation_checkpoint_interval=1 if checkpointed else 0)
        count = 1 if checkpointed else stage.blocks
        need = stage_activations([kinds["block"]] * count, one, 0, 0, count).backward_bytes
        needs.append(need - freed)
        held = kinds["block"].output if checkpointed else kinds["block"].held
        freed += stage.blocks * held
    if stage.first:
        needs.append(kinds["embed"].backward_transient - freed)
    return max(0, *needs)


