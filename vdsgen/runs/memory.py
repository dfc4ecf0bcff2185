"""Memory of each rank: measured beside planned, and what there is."""

from __future__ import annotations

from dataclasses import dataclass

from vdsgen.runs.reader import RunData
from vdsgen.spec.run import WARM_UP_STEPS

TOLERANCE, SLACK_BYTES = 1.05, 64 * 1024**2
"""What is measured may be so many times the plan, or so much above it, before it is told."""


@dataclass(frozen=True, slots=True)
class RankMemory:
    rank: int
    stage: int | None
    measured_bytes: int
    """The highest peak; on a processor of the steps in which it is measured exactly."""
    planned_bytes: int | None
    """Without the plan's reserve."""
    capacity_bytes: int | None

    @property
    def ratio(self) -> float | None:
        return self.measured_bytes / self.planned_bytes if self.planned_bytes else None

    @property
    def over_plan(self) -> bool:
        planned = self.planned_bytes
        return planned is not None and self.measured_bytes > max(TOLERANCE * planned, planned + SLACK_BYTES)

    @property
    def over_capacity(self) -> bool:
        return self.capacity_bytes is not None and self.measured_bytes > self.capacity_bytes


def memory_of(data: RunData) -> list[RankMemory]:
    """Rank by rank; [] before the first step."""
    peaks = _peaks(data)
    layout = None if data.record is None else data.record.layout
    plan = data.plan
    on_processor = data.record is not None and data.record.on_processors
    found = []
    for rank, peak in enumerate(peaks):
        stage = layout.stage_of(rank) if layout is not None and rank < layout.world_size else None
        planned = plan.stages[stage] if plan and stage is not None and stage < len(plan.stages) else None
        found.append(
            RankMemory(
                rank,
                stage,
                peak,
                None if planned is None else planned.measured_bytes(on_processor=on_processor),
                None if planned is None else planned.capacity_bytes,
            )
        )
    return found


def _peaks(data: RunData) -> list[int]:
    """Of each rank of the last layout, the highest that counts."""
    if data.record is None or not data.record.on_processors:
        return data.highest_bytes
    sizes = 1 if data.experiment is None else len(data.experiment.data.sizes)
    begun = max((start.from_step or 0 for start in data.record.starts), default=0)
    exact = [step for step in data.steps if begun < step.step <= begun + WARM_UP_STEPS * sizes]
    ranks = len(exact[-1].peak_bytes) if exact else 0
    same = [step.peak_bytes for step in exact if len(step.peak_bytes) == ranks]
    return [max(peaks) for peaks in zip(*same, strict=True)]
