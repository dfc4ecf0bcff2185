"""What a pipeline stage does in one optimizer step, instruction by instruction.

A pipeline runs DeepSpeed's TrainSchedule (1F1B; deepspeed/runtime/pipe/schedule.py:189, 0.19.8); one process
accumulates plainly, as the trainer's loop does (model/engine.py, `train_step`).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal, NamedTuple

from vdsgen.cost.schedule import micro_batch_at

Name = Literal[
    "LoadMicroBatch",
    "RecvActivation",
    "ForwardPass",
    "SendActivation",
    "RecvGrad",
    "BackwardPass",
    "SendGrad",
    "ReduceTiedGrads",
    "ReduceGrads",
    "OptimizerStep",
]
"""Names of the engine's instruction classes."""


class Instruction(NamedTuple):
    """One instruction of one stage."""

    name: Name
    micro_batch: int | None = None
    """From 0; None for those at the end of the step."""


def instructions(
    stage: int, stages: int, micro_batches: int, *, reduces_each: bool = False
) -> Iterator[Instruction]:
    """The stage's instructions in order, one optimizer step.

    `reduces_each`: ZeRO-2 and 3, which no pipeline has, reduce after every backward
    (`allreduce_gradients`, engine.py:3085), the others after the last.
    """
    if stages > 1:
        assert not reduces_each, "ZeRO-2 and 3 are refused in a pipeline"
        yield from _pipeline(stage, stages, micro_batches)
        yield Instruction("ReduceTiedGrads")
    else:
        yield from _accumulation(micro_batches, reduces_each=reduces_each)
    if not reduces_each:
        yield Instruction("ReduceGrads")
    yield Instruction("OptimizerStep")


def pipeline_slots(stage: int, stages: int, micro_batches: int) -> int:
    """Slots of `pipe_buffers` that the stage uses in turn: TrainSchedule.num_pipe_buffers (:255) reserves
    two at least, of which a single micro-batch uses one."""
    return min(max(2, stages - stage), micro_batches)


def _accumulation(micro_batches: int, *, reduces_each: bool) -> Iterator[Instruction]:
    for micro_batch in range(micro_batches):
        yield Instruction("LoadMicroBatch", micro_batch)
        yield Instruction("ForwardPass", micro_batch)
        yield Instruction("BackwardPass", micro_batch)
        if reduces_each:
            yield Instruction("ReduceGrads", micro_batch)


def _pipeline(stage: int, stages: int, micro_batches: int) -> Iterator[Instruction]:
    """TrainSchedule.steps (:194): a step exchanges with a neighbour, loads, and computes."""
    first, last = stage == 0, stage == stages - 1
    before: int | None = None
    for step in range(2 * (micro_batches + stages - 1)):
        number, is_forward = micro_batch_at(step, stage, stages)
        current = number if 0 <= number < micro_batches else None
        if is_forward:
            if before is not None and not first:
                yield Instruction("SendGrad", before)
            if current is not None and not first:
                yield Instruction("RecvActivation", current)
            if current is not None and (first or last):
                yield Instruction("LoadMicroBatch", current)
        else:
            if current is not None and not last:
                yield Instruction("RecvGrad", current)
            if before is not None and not last:
                yield Instruction("SendActivation", before)
        if current is not None:
            yield Instruction("ForwardPass" if is_forward else "BackwardPass", current)
        before = current
