"""When each pipeline stage works and waits: DeepSpeed's 1F1B schedule, simulated event by event.

The order of instructions is TrainSchedule's (deepspeed/runtime/pipe/schedule.py:189, 0.19.8). Each
stage alternates a forward with a backward step; in a forward step it exchanges with the stage
before it (SendGrad, RecvActivation), in a backward step with the stage after it (RecvGrad,
SendActivation). Sends and receives are rendezvous (`dist.send` and `dist.recv` on the compute
stream, pipe/p2p.py:46), so both sides start a transfer when the later one is ready and end together.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple


class StageTimes(NamedTuple):
    """Seconds that one micro-batch computes on one stage; backward includes recomputation."""

    forward_seconds: float
    backward_seconds: float

    @property
    def busy_seconds(self) -> float:
        return self.forward_seconds + self.backward_seconds


class PipelineRun(NamedTuple):
    """One optimizer step's micro-batches through the pipeline."""

    stage_end_seconds: tuple[float, ...]
    """When each stage has finished its last backward, and may reduce its gradients."""
    busy_seconds: float
    """Compute of the average stage."""

    @property
    def makespan_seconds(self) -> float:
        return max(self.stage_end_seconds)

    @property
    def bubble_fraction(self) -> float:
        """Share of the makespan in which the average stage computes nothing.

        With equal stages and free transfers this is (p - 1) / (m + p - 1) for p stages and m
        micro-batches (arXiv 1806.03377, section 3; arXiv 2104.04473, section 2.2.1 states it
        relative to the busy time).
        """
        return 1.0 - self.busy_seconds / self.makespan_seconds


def micro_batch_at(step: int, stage: int, stages: int) -> tuple[int, bool]:
    """(micro-batch, is it a forward) that `stage` works on in `step`; out of range means nothing to do.

    TrainSchedule._step_to_micro_batch, written once for both parities.
    """
    is_forward = (step - stage) % 2 == 0
    if is_forward:
        return (step - stage) // 2, True
    return (step + stage + 1) // 2 - stages, False


def simulate(stages: Sequence[StageTimes], transfers: Sequence[float], micro_batches: int) -> PipelineRun:
    """Run `micro_batches` through `stages`.

    transfers[i] is the seconds that one activation takes from stage i to i + 1; its gradient takes the
    same way back. Exact for the given figures; takes O(stages x (micro-batches + stages)).
    """
    count = len(stages)
    assert len(transfers) == count - 1, "one transfer time for each pair of neighbours"
    clock = [0.0] * count
    forward = [stage.forward_seconds for stage in stages]
    backward = [stage.backward_seconds for stage in stages]
    for step in range(2 * (micro_batches + count - 1)):
        # Neighbours (s, s + 1) meet in this step where s is in a backward step: its parity differs.
        for stage in range((step + 1) % 2, count - 1, 2):
            gradient = 0 <= (step + stage + 1) // 2 - count < micro_batches
            activation = 0 <= (step - stage - 1) // 2 < micro_batches
            if gradient or activation:
                start = max(clock[stage], clock[stage + 1])
                clock[stage] = clock[stage + 1] = start + (gradient + activation) * transfers[stage]
        for stage in range(count):
            if (step - stage) % 2 == 0:
                if 0 <= (step - stage) // 2 < micro_batches:
                    clock[stage] += forward[stage]
            elif 0 <= (step + stage + 1) // 2 - count < micro_batches:
                clock[stage] += backward[stage]
    busy = micro_batches * sum(stage.busy_seconds for stage in stages) / count
    return PipelineRun(stage_end_seconds=tuple(clock), busy_seconds=busy)


def makespan_lower_bound(stages: Sequence[StageTimes], micro_batches: int) -> float:
    """Seconds that no schedule can beat, in O(stages); equal to the makespan for equal stages.

    Stage s works on every micro-batch; before its first forward and after its last backward, some
    micro-batch passes all stages before it.
    """
    before = 0.0
    bound = 0.0
    for stage in stages:
        bound = max(bound, before + micro_batches * stage.busy_seconds)
        before += stage.busy_seconds
    return bound


def buffers_in_flight(stage: int, stages: int, micro_batches: int) -> int:
    """Micro-batches whose activations a stage holds at once under 1F1B.

    TrainSchedule.num_pipe_buffers (pipe/schedule.py:255) allocates two slots even where only one
    micro-batch is ever between its forward and its backward: slots are not what is held.
    """
    return min(stages - stage, micro_batches)
