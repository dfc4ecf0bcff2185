"""When each instruction of a pipeline begins and ends: what `schedule.simulate` adds up, one by one.

The instructions and their order are the engine's (`instructions.py`); a send and its receive begin when the
later side is ready for them, and end together. The last ends are those of `simulate` and `simulate_shared`.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import NamedTuple

from vdsgen.cost.instructions import Instruction, Name, instructions
from vdsgen.cost.schedule import StageTimes
from vdsgen.cost.shared_processor import Sharing


class Slice(NamedTuple):
    """One instruction of one stage."""

    stage: int
    name: str
    """An engine's instruction, or what a step waits for besides (step_slices.py)."""
    micro_batch: int | None
    begin_seconds: float
    end_seconds: float


PARTNERS: dict[Name, tuple[int, Name]] = {
    "SendActivation": (1, "RecvActivation"),
    "RecvActivation": (-1, "SendActivation"),
    "SendGrad": (-1, "RecvGrad"),
    "RecvGrad": (1, "SendGrad"),
}
"""Exchanges: the neighbour, and what it does meanwhile."""

COMPUTED: frozenset[Name] = frozenset({"ForwardPass", "BackwardPass"})


class _Pipeline:
    """Instructions that are not done yet, by stage."""

    def __init__(self, stages: Sequence[StageTimes], transfers: Sequence[float], micro_batches: int) -> None:
        self.stages, self.transfers = stages, transfers
        self.left: list[deque[Instruction]] = [
            deque(
                one
                for one in instructions(stage, len(stages), micro_batches)
                if one.name in COMPUTED or one.name in PARTNERS
            )
            for stage in range(len(stages))
        ]

    def seconds(self, stage: int, instruction: Instruction) -> float:
        """Of one instruction, without waiting."""
        if instruction.name in COMPUTED:
            times = self.stages[stage]
            return times.forward_seconds if instruction.name == "ForwardPass" else times.backward_seconds
        neighbour = stage + PARTNERS[instruction.name][0]
        return self.transfers[min(stage, neighbour)]

    def partner(self, stage: int) -> int | None:
        """The stage that the next instruction needs, where that is ready for it; None where it is not."""
        instruction = self.left[stage][0]
        step, name = PARTNERS[instruction.name]
        other = self.left[stage + step]
        ready = bool(other) and other[0] == Instruction(name, instruction.micro_batch)
        return stage + step if ready else None


def pipeline_slices(
    stages: Sequence[StageTimes], transfers: Sequence[float], micro_batches: int
) -> list[Slice]:
    """Of stages that each have a device of their own, by stage and time; arguments as of `simulate`."""
    pipeline = _Pipeline(stages, transfers, micro_batches)
    clock = [0.0] * len(stages)
    found: list[list[Slice]] = [[] for _ in stages]

    def run(stage: int, begin: float) -> None:
        instruction = pipeline.left[stage].popleft()
        clock[stage] = begin + pipeline.seconds(stage, instruction)
        found[stage].append(Slice(stage, instruction.name, instruction.micro_batch, begin, clock[stage]))

    ready = list(range(len(stages)))
    while ready:
        stage = ready.pop()
        while pipeline.left[stage]:
            if pipeline.left[stage][0].name in COMPUTED:
                run(stage, clock[stage])
                continue
            partner = pipeline.partner(stage)
            if partner is None:
                break
            begin = max(clock[stage], clock[partner])
            run(stage, begin)
            run(partner, begin)
            ready.append(partner)
    assert not any(pipeline.left), "a pipeline's schedule does not deadlock"
    return [one for stage in found for one in stage]


def shared_slices(
    stages: Sequence[StageTimes],
    transfers: Sequence[float],
    micro_batches: int,
    sharing: Sharing,
    ranks_a_stage: int,
) -> list[Slice]:
    """The same where the stages' ranks share a processor's cores; arguments as of `simulate_shared`."""
    pipeline = _Pipeline(stages, transfers, micro_batches)
    found: list[list[Slice]] = [[] for _ in stages]
    begun: dict[int, float] = {}
    left: dict[int, float] = {}
    now = 0.0
    while any(pipeline.left):
        for stage, queue in enumerate(pipeline.left):
            if stage in left or not queue:
                continue
            starting = [stage]
            if queue[0].name not in COMPUTED:
                partner = pipeline.partner(stage)
                if partner is None or partner in left:
                    continue
                starting.append(partner)
            for one in starting:
                begun[one], left[one] = now, pipeline.seconds(one, pipeline.left[one][0])
        speed = sharing.speed(ranks_a_stage * len(left))
        rates = {one: speed if pipeline.left[one][0].name in COMPUTED else 1.0 for one in left}
        elapsed = min(left[one] / rates[one] for one in left)
        now += elapsed
        for one in list(left):
            left[one] -= elapsed * rates[one]
            if left[one] <= 1e-12:
                instruction = pipeline.left[one].popleft()
                found[one].append(Slice(one, instruction.name, instruction.micro_batch, begun[one], now))
                del left[one]
    return [one for stage in found for one in stage]
