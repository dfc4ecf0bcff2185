"""Every rank's measurements of a step, known to all ranks: one collective a step."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass

import torch
from deepspeed import comm as dist

from vdsgen.model.monitoring.clock import ACTIVITIES


@dataclass(frozen=True, slots=True)
class RankRow:
    """What one rank has measured."""

    peak_bytes: int
    held_bytes: int
    """Between this step and the next."""
    step_seconds: float
    asked_first: int
    asked_last: int
    """Steps that rank 0 was asked to profile; 0: none."""
    trace_first: int
    trace_last: int
    """The same, for a trace of the schedule."""
    wish: int
    """What is to become of the run after this step: one of vdsgen.model.stopping.Wish."""
    activities: tuple[float, ...]
    """Seconds of each of ACTIVITIES."""
    counts: tuple[int, ...]
    """Whole numbers of the caller's own."""
    squares: tuple[float, ...]
    """Squared gradient norm of each layer that the rank holds."""


def gather_rows(row: RankRow, most_layers: int, device: torch.device) -> list[RankRow]:
    """Rank by rank. Collective. `most_layers`: that a rank holds; `squares` come back padded to it."""
    padded = (*row.squares, *[0.0] * (most_layers - len(row.squares)))
    asked = (row.asked_first, row.asked_last, row.trace_first, row.trace_last, row.wish)
    head = (row.peak_bytes, row.held_bytes, row.step_seconds, *asked)
    values = (*head, *row.activities, *row.counts, *padded)
    # float64 holds bytes exactly up to 8 PiB.
    mine = torch.tensor(values, dtype=torch.float64, device=device)
    rows = [torch.empty_like(mine) for _ in range(dist.get_world_size())]
    dist.all_gather(rows, mine)
    return [_row(values, len(row.counts)) for values in torch.stack(rows).tolist()]


def _row(values: Sequence[float], counts: int) -> RankRow:
    peak, held, seconds, first, last, trace_first, trace_last, wish, *rest = values
    own = len(ACTIVITIES) + counts
    return RankRow(
        peak_bytes=int(peak),
        held_bytes=int(held),
        step_seconds=seconds,
        asked_first=int(first),
        asked_last=int(last),
        trace_first=int(trace_first),
        trace_last=int(trace_last),
        wish=int(wish),
        activities=tuple(rest[: len(ACTIVITIES)]),
        counts=tuple(int(count) for count in rest[len(ACTIVITIES) : own]),
        squares=tuple(rest[own:]),
    )


@dataclass(frozen=True, slots=True)
class StageTimes:
    """One pipeline stage in one step: seconds are means over its ranks, and add up to the step."""

    stage: int
    forward_seconds: float
    backward_seconds: float
    bubble_seconds: float
    transfer_seconds: float
    reduce_seconds: float
    gather_seconds: float
    optimizer_seconds: float
    data_seconds: float
    other_seconds: float
    peak_memory_bytes: int
    """Of the rank that needed most."""
    slowest_rank: int
    """That computed longest, forward and backward."""
    slowest_compute_seconds: float

    def values(self) -> dict[str, float | int]:
        return {
            key: round(value, 6) if isinstance(value, float) else value for key, value in asdict(self).items()
        }


def stage_times(rows: Sequence[RankRow], stages: Sequence[int]) -> list[StageTimes]:
    """`stages[rank]` is the stage of each rank."""
    found = []
    for stage in sorted(set(stages)):
        ranks = [rank for rank, own in enumerate(stages) if own == stage]
        columns = zip(*(rows[rank].activities for rank in ranks), strict=True)
        means = {
            f"{name}_seconds": sum(column) / len(ranks)
            for name, column in zip(ACTIVITIES, columns, strict=True)
        }
        compute = {rank: sum(rows[rank].activities[:2]) for rank in ranks}
        slowest = max(compute, key=lambda rank: compute[rank])
        peak = max(rows[rank].peak_bytes for rank in ranks)
        found.append(StageTimes(stage, **means, peak_memory_bytes=peak, slowest_rank=slowest,
                                slowest_compute_seconds=compute[slowest]))  # fmt: skip
    return found
