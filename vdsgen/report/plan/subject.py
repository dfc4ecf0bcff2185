"""A rendered directory as sections see it: its plan, its costs, and its step on the clock."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from vdsgen.cost.settings import Settings
from vdsgen.cost.step_slices import StepSlices, step_slices
from vdsgen.planner.again import candidate_of
from vdsgen.planner.search import Candidate
from vdsgen.planner.workload import Workload
from vdsgen.report.planned import planned
from vdsgen.spec.plan import Plan

LETTERS = "AB"


@dataclass(frozen=True)
class PlanSubject:
    """One of the plans that a report is about."""

    letter: str
    """A or B; empty where there is only one."""
    plan: Plan
    workload: Workload

    @property
    def name(self) -> str:
        return f"{self.plan.model.name} on {self.plan.pool}"

    @property
    def prefix(self) -> str:
        """Before what is this plan's: `A: `; nothing where there is only one."""
        return f"{self.letter}: " if self.letter else ""

    def id(self, name: str) -> str:
        """Of a figure: unique in the report."""
        return f"{name}-{self.letter.lower()}" if self.letter else name

    @cached_property
    def candidate(self) -> Candidate:
        return candidate_of(self.plan, self.workload)

    @property
    def settings(self) -> Settings:
        return self.candidate.settings

    @property
    def partition(self) -> tuple[int, ...]:
        return self.candidate.placed.partition

    @cached_property
    def step(self) -> StepSlices:
        """The step on the clock, as much as is shown of it."""
        return step_slices(self.workload.times, self.settings, self.partition)


def read_subjects(directories: list[Path]) -> list[PlanSubject]:
    """Raises VdsgenError where one is no rendered directory."""
    several = len(directories) > 1
    return [
        PlanSubject(LETTERS[number] if several else "", *planned(directory))
        for number, directory in enumerate(directories)
    ]
