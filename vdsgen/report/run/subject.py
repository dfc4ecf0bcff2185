"""A run directory as sections see it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from vdsgen.errors import VdsgenError
from vdsgen.report.plan.subject import LETTERS, PlanSubject
from vdsgen.report.planned import planned
from vdsgen.runs.beats import newest
from vdsgen.runs.reader import RunData, read_run
from vdsgen.runs.records import Step
from vdsgen.runs.state import Standing, standing
from vdsgen.runs.traces import ScheduleCapture, captures, read_trace
from vdsgen.runs.values import one_line
from vdsgen.spec.run import WARM_UP_STEPS
from vdsgen.spec.run_plans import recorded_plans


@dataclass(frozen=True)
class RunSubject:
    """One of the runs that a report is about."""

    letter: str
    """A or B; empty where there is only one."""
    data: RunData

    @property
    def name(self) -> str:
        experiment = self.data.experiment
        folder = one_line(self.data.path.resolve().name, 60)
        if experiment is None or experiment.name == folder:
            return folder
        return f"{experiment.name} ({folder})"

    @property
    def prefix(self) -> str:
        """Before what is this run's: `A: `; nothing where there is only one."""
        return f"{self.letter}: " if self.letter else ""

    def id(self, name: str) -> str:
        """Of a figure: unique in the report."""
        return f"{name}-{self.letter.lower()}" if self.letter else name

    @property
    def number(self) -> int:
        """0 of the first, 1 of the second: its colour."""
        return max(0, LETTERS.find(self.letter)) if self.letter else 0

    @cached_property
    def standing(self) -> Standing:
        """As its files say: of a run that goes on, their last word. Heartbeats are never old: the report
        of a copied run says the same everywhere."""
        beat = newest(self.data.beats)
        return standing(self.data, silent_seconds=None if beat is None else 0.0)

    @property
    def timed(self) -> list[Step]:
        """Steps whose seconds count: without the first ones, which allocate and measure memory."""
        warm = WARM_UP_STEPS
        return self.data.steps[warm:] if len(self.data.steps) > 2 * warm else self.data.steps

    @property
    def predicted_step_seconds(self) -> float | None:
        return None if self.data.plan is None else self.data.plan.predicted.step_seconds

    @property
    def restarts(self) -> list[int]:
        """Steps after which it was started again."""
        starts = () if self.data.record is None else self.data.record.starts[1:]
        return [start.from_step for start in starts if start.from_step is not None]

    @cached_property
    def capture(self) -> ScheduleCapture | None:
        """The last one; None where nothing was traced."""
        folders = captures(self.data.path)
        return read_trace(folders[-1]) if folders else None

    @cached_property
    def planned(self) -> PlanSubject | None:
        """Of the run's own copy; None where its costs cannot be worked out any more."""
        copies = recorded_plans(self.data.path)
        plan = self.data.plan
        for folder in reversed(copies):
            try:
                found, workload = planned(folder)
            except VdsgenError:
                continue
            if plan is None or found == plan:
                return PlanSubject(self.letter, found, workload)
        return None


def read_subjects(runs: Sequence[Path]) -> list[RunSubject]:
    """Raises VdsgenError where one is no run directory."""
    several = len(runs) > 1
    return [RunSubject(LETTERS[number] if several else "", read_run(run)) for number, run in enumerate(runs)]


def is_run(directory: Path) -> bool:
    """And not a rendered directory."""
    return not (directory / "ds_config.json").is_file() and any(
        (directory / name).exists() for name in ("run.json", "metrics.jsonl", "plans")
    )
