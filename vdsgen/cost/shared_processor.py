"""Ranks that share a processor's cores: who computes slows the others down, who waits lends them its core.

With more ranks than cores a pipeline's bubble costs little: while one stage waits, the others run faster.
Ranks that wait in a collective or a receive sleep (gloo waits on a condition variable), so the cores are
divided among the ranks that are busy, evenly as the kernel's scheduler does.
Ignored: threads of the communication library and of the loader beside the ranks' own.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from vdsgen.cost.schedule import PipelineRun, StageTimes
from vdsgen.spec.calibration import Calibration, middle
from vdsgen.spec.lab import Gpu, Pool


class Sharing(NamedTuple):
    """How fast a rank computes, by the number of ranks that compute at once."""

    cores: int
    alone_speedup: float = 1.0
    """Of one rank alone against one of those measured together: caches, memory and clocks to itself."""
    measured_with: int = 1
    """Ranks that were busy while the rates were measured: speeds are relative to those."""
    crowded_slowdown: float = 1.0
    """Processor time of a rank that takes turns on a core, over that of one with a core to itself."""

    @classmethod
    def of(cls, pool: Pool) -> Sharing | None:
        """None where each rank has a device of its own, or nobody said how many cores there are."""
        assert isinstance(pool.gpu, Gpu), "the GPU is resolved before costs are asked for"
        if pool.gpu.memory_gib is not None or pool.cpu_cores is None:
            return None
        calibration = pool.calibration
        cores = pool.cpu_cores * pool.nodes
        if calibration is None:
            return cls(cores, measured_with=cores)
        assert isinstance(calibration, Calibration)
        measured_with = (calibration.busy_ranks or pool.gpus_per_node) * pool.nodes
        # More ranks never do less together than fewer: bounds what a noisy measurement can claim.
        together = min(cores, measured_with)
        alone = min(1 + (together - 1) / together, max(1.0, middle(calibration.alone_speedup or 1.0)))
        crowded = max(1.0, middle(calibration.crowded_slowdown or 1.0))
        return cls(cores, alone, measured_with, crowded)

    def speed(self, busy: int) -> float:
        """Of each of `busy` ranks, relative to the measured rates."""
        return self._share(busy) / self._share(self.measured_with)

    def _share(self, busy: int) -> float:
        """From one rank alone to those that were measured together; then a core each; then turns."""
        if busy > self.cores:
            return self.cores / busy / self.crowded_slowdown
        if busy == self.cores:
            return 1.0
        together = min(self.cores, self.measured_with)
        if busy >= together:
            return 1.0
        return self.alone_speedup + (1 - self.alone_speedup) * (busy - 1) / (together - 1)


@dataclass(slots=True)
class _Stage:
    """Where a stage is in its instructions: each is (seconds, the neighbour it needs or None)."""

    instructions: deque[tuple[float, int | None]]
    left: float = 0.0
    running: bool = False
    end: float = 0.0


def simulate_shared(
    stages: Sequence[StageTimes],
    transfers: Sequence[float],
    micro_batches: int,
    sharing: Sharing,
    ranks_a_stage: int,
) -> PipelineRun:
    """`schedule.simulate` on shared cores; `stages` are seconds at the measured rates.

    Transfers keep both sides busy and take as long as measured, since they are measured among busy ranks.
    busy_seconds is what the average stage would take if no core were ever idle.
    """
    running = [_Stage(_instructions(stages, transfers, micro_batches, index)) for index in range(len(stages))]
    now = 0.0
    while any(stage.instructions for stage in running):
        for index, stage in enumerate(running):
            if not stage.running and stage.instructions:
                _start(running, index)
        busy = [stage for stage in running if stage.running]
        assert busy, "a pipeline's schedule does not deadlock"
        speed = sharing.speed(ranks_a_stage * len(busy))
        rates = [speed if stage.instructions[0][1] is None else 1.0 for stage in busy]
        elapsed = min(stage.left / rate for stage, rate in zip(busy, rates, strict=True))
        now += elapsed
        for stage, rate in zip(busy, rates, strict=True):
            stage.left -= elapsed * rate
            if stage.left <= 1e-12:
                stage.instructions.popleft()
                stage.running = False
                stage.end = now
    work = micro_batches * sum(stage.busy_seconds for stage in stages) / len(stages)
    return PipelineRun(
        stage_end_seconds=tuple(stage.end for stage in running),
        busy_seconds=work / sharing.speed(ranks_a_stage * len(stages)),
    )


def _start(running: list[_Stage], index: int) -> None:
    """Starts a stage's next instruction; an exchange starts where its neighbour is ready for it too."""
    seconds, neighbour = running[index].instructions[0]
    if neighbour is not None:
        other = running[neighbour]
        if other.running or not other.instructions or other.instructions[0][1] != index:
            return
        other.running, other.left = True, seconds
    running[index].running, running[index].left = True, seconds


def _instructions(
    stages: Sequence[StageTimes], transfers: Sequence[float], micro_batches: int, index: int
) -> deque[tuple[float, int | None]]:
    """A stage's instructions in the engine's order; see schedule.simulate."""
    count = len(stages)
    found: deque[tuple[float, int | None]] = deque()
    for step in range(2 * (micro_batches + count - 1)):
        for left in (index - 1, index):  # the pairs (left, left + 1) that this stage is in
            if not 0 <= left < count - 1 or (step - left) % 2 == 0:
                continue
            gradient = 0 <= (step + left + 1) // 2 - count < micro_batches
            activation = 0 <= (step - left - 1) // 2 < micro_batches
            if gradient or activation:
                neighbour = left + 1 if left == index else left
                found.append(((gradient + activation) * transfers[left], neighbour))
        if (step - index) % 2 == 0:
            if 0 <= (step - index) // 2 < micro_batches:
                found.append((stages[index].forward_seconds, None))
        elif 0 <= (step + index + 1) // 2 - count < micro_batches:
            found.append((stages[index].backward_seconds, None))
    return found
