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


STEADY = 1e-12
"""Relative: clocks that have moved by as much on every stage, but for rounding."""
LONGEST_PERIOD = 4
"""Micro-batches after which a steady pipeline may repeat itself; longer periods are simulated through."""


def simulate(stages: Sequence[StageTimes], transfers: Sequence[float], micro_batches: int) -> PipelineRun:
    """Run `micro_batches` through `stages`.

    transfers[i] is the seconds that one activation takes from stage i to i + 1; its gradient takes the
    same way back. Exact for the given figures, but for rounding: where the full pipeline has become steady
    (all clocks advance by the same in one micro-batch, or in a few), what remains of its steady part is
    added up at once. Takes O(stages x (stages + micro-batches until it is steady)).
    """
    count = len(stages)
    assert len(transfers) == count - 1, "one transfer time for each pair of neighbours"
    clock = [0.0] * count
    full_until, steps = 2 * micro_batches, 2 * (micro_batches + count - 1)
    full_from = min(2 * count, steps)
    _edge(clock, stages, transfers, micro_batches, range(full_from))
    if full_from < full_until:
        _steady(clock, stages, transfers, micro_batches - count)
    _edge(clock, stages, transfers, micro_batches, range(max(full_from, full_until), steps))
    busy = micro_batches * sum(stage.busy_seconds for stage in stages) / count
    return PipelineRun(stage_end_seconds=tuple(clock), busy_seconds=busy)


def _edge(
    clock: list[float],
    stages: Sequence[StageTimes],
    transfers: Sequence[float],
    micro_batches: int,
    steps: range,
) -> None:
    """Steps in which the pipeline fills or drains: some stages have nothing to do.

    `micro_batch_at` as ranges of stages: in a step those of its parity go forward, the others backward.
    """
    count, rounds = len(stages), 2 * micro_batches
    forward = [stage.forward_seconds for stage in stages]
    backward = [stage.backward_seconds for stage in stages]
    for step in steps:
        returns = 2 * count - step - 1
        """The first stage that has a gradient to work on."""
        # Neighbours (s, s + 1) meet in this step where s is in a backward step: its parity differs.
        for stage in range((step + 1) % 2, count - 1, 2):
            meetings = (returns <= stage < returns + rounds) + (step - rounds <= stage < step)
            if meetings:
                start = max(clock[stage], clock[stage + 1])
                clock[stage] = clock[stage + 1] = start + meetings * transfers[stage]
        for stage in range(max(step % 2, step - rounds + 2), min(count, step + 1), 2):
            clock[stage] += forward[stage]
        for stage in range(max((step + 1) % 2, returns), min(count, returns + rounds), 2):
            clock[stage] += backward[stage]


def _steady(
    clock: list[float], stages: Sequence[StageTimes], transfers: Sequence[float], micro_batches: int
) -> None:
    """The steps in which every stage works: two for each of `micro_batches`, from an even one on."""
    count = len(stages)
    even = [times[stage % 2] for stage, times in enumerate(stages)]  # even stages go forward
    odd = [times[1 - stage % 2] for stage, times in enumerate(stages)]
    earlier: list[list[float]] = []
    done = 0
    while done < micro_batches:
        for first, seconds in ((1, even), (0, odd)):
            for stage in range(first, count - 1, 2):
                one, other = clock[stage], clock[stage + 1]
                clock[stage] = clock[stage + 1] = (one if one > other else other) + 2 * transfers[stage]
            for stage, spent in enumerate(seconds):
                clock[stage] += spent
        done += 1
        for period, before in enumerate(reversed(earlier), start=1):
            advance = clock[0] - before[0]
            if all(
                abs(now - then - advance) <= STEADY * now for now, then in zip(clock, before, strict=True)
            ):
                repeats = (micro_batches - done) // period
                clock[:] = [now + repeats * advance for now in clock]
                done += repeats * period
                break
        earlier = [*earlier[1 - LONGEST_PERIOD :], list(clock)]


def idle_lower_bound(
    later_seconds: float, forward_seconds: float, backward_seconds: float, held: int, micro_batches: int
) -> float:
    """Seconds that a stage waits at least, after its first forward and before its last backward.

    The first micro-batch, and the last one, take `later_seconds` through the later stages and back, while the
    stage has only `held` - 1 other forwards (or backwards) to do; each with its transfers. Where a step has
    no more micro-batches than it holds, the two waits are one.
    """
    if micro_batches > held:
        others = held - 1
        return max(0.0, later_seconds - others * forward_seconds) + max(
            0.0, later_seconds - others * backward_seconds
        )
    return max(0.0, later_seconds - (micro_batches - 1) * min(forward_seconds, backward_seconds))


def stage_end_lower_bounds(
    stages: Sequence[StageTimes], transfers: Sequence[float], micro_batches: int
) -> list[tuple[float, float]]:
    """For each stage what no schedule can beat: (when it has finished its last backward and sent it on, when
    that has come through all stages before it).

    A stage works on every micro-batch and takes part in each of its transfers; before that some micro-batch
    passes all stages before it, and it waits for later ones (`idle_lower_bound`). The largest of the second
    figures equals the makespan for equal stages.
    """
    count = len(stages)
    later = [0.0] * (count + 1)
    for stage in range(count - 1, 0, -1):
        through = stages[stage].busy_seconds + (2 * transfers[stage] if stage < count - 1 else 0.0)
        later[stage - 1] = later[stage] + through
    bounds = []
    forward_before = before = 0.0
    for stage, times in enumerate(stages):
        beside = transfers[stage - 1] if stage else 0.0
        beside += transfers[stage] if stage < count - 1 else 0.0
        works = micro_batches * (times.busy_seconds + 2 * beside) + idle_lower_bound(
            later[stage],
            times.forward_seconds + beside,
            times.backward_seconds + beside,
            count - stage,
            micro_batches,
        )
        bounds.append((forward_before + works, before + works))
        sent = transfers[stage - 1] if stage else 0.0
        forward_before += times.forward_seconds + sent
        before += times.busy_seconds + 2 * sent
    return bounds


def makespan_lower_bound(
    stages: Sequence[StageTimes], micro_batches: int, transfers: Sequence[float] = ()
) -> float:
    """Seconds that no schedule can beat, in O(stages); equal to the makespan for equal stages."""
    ends = stage_end_lower_bounds(stages, transfers or [0.0] * (len(stages) - 1), micro_batches)
    return max(through for _, through in ends)


def buffers_in_flight(stage: int, stages: int, micro_batches: int) -> int:
    """Micro-batches whose activations a stage holds at once under 1F1B.

    TrainSchedule.num_pipe_buffers (pipe/schedule.py:255) allocates two slots even where only one
    micro-batch is ever between its forward and its backward: slots are not what is held.
    """
    return min(stages - stage, micro_batches)
