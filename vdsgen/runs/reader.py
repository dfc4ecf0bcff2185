"""A run directory, kept up with: what has been read stays, and a look reads what is new.

Files are only ever read, by polling: it works over NFS and sshfs, where nobody tells of a change.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from vdsgen.errors import VdsgenError
from vdsgen.runs.beats import SeenBeat, read_beats
from vdsgen.runs.lines import Lines
from vdsgen.runs.logs import LogLine, RunLogs
from vdsgen.runs.record import RunRecord, record_of
from vdsgen.runs.records import (
    HeldOutLoss,
    RunAlarm,
    Save,
    StageSeconds,
    Step,
    alarm_of,
    held_out_of,
    save_of,
    stages_of,
    step_of,
)
from vdsgen.runs.small_file import SmallFile
from vdsgen.runs.values import object_of
from vdsgen.spec.experiment import Experiment
from vdsgen.spec.load import load_experiment
from vdsgen.spec.plan import Plan
from vdsgen.spec.run import ALARMS, METRICS, RECORD, SAVES, SUMMARY, VALIDATION
from vdsgen.spec.run_plans import PLANS, recorded_plans

RECENT_STAGES = 200
"""Steps whose stages' seconds are kept."""
RANKS_A_SECOND = 100
"""Heartbeats that are read, at most."""


@dataclass(slots=True)
class RunData:
    """All that is known of a run. Lists grow from look to look; do not keep or change them."""

    path: Path
    exists: bool = False
    """Anything is there at all."""
    record: RunRecord | None = None
    record_written_at: float = 0.0
    plan: Plan | None = None
    """That the last start trains by; None: not there yet, or of a version that cannot be read."""
    experiment: Experiment | None = None
    steps: list[Step] = field(default_factory=list)
    stages: deque[tuple[StageSeconds, ...]] = field(default_factory=lambda: deque(maxlen=RECENT_STAGES))
    """Of the last steps."""
    highest_bytes: list[int] = field(default_factory=list)
    """Of each rank of the present layout, the highest peak of all steps."""
    held_out: list[HeldOutLoss] = field(default_factory=list)
    saves: list[Save] = field(default_factory=list)
    alarms: list[RunAlarm] = field(default_factory=list)
    beats: Mapping[int, SeenBeat] = field(default_factory=dict)
    log: deque[LogLine] = field(default_factory=deque)
    has_logs: bool = False
    summary: Mapping[str, Any] | None = None
    unreadable_lines: int = 0


class RunReader:
    """Of one run directory, which need not exist yet."""

    def __init__(self, run: Path, *, logs: bool = True) -> None:
        self.data = RunData(run)
        self._record, self._summary = SmallFile(run / RECORD), SmallFile(run / SUMMARY)
        self._plan: SmallFile | None = None
        self._stages: deque[tuple[StageSeconds, ...]] = self.data.stages
        self._steps = Lines(run / METRICS, self._step)
        self._held_out = Lines(run / VALIDATION, held_out_of)
        self._saves = Lines(run / SAVES, save_of)
        self._alarms = Lines(run / ALARMS, alarm_of)
        self._logs = RunLogs(run) if logs else None
        self._beats_at = 0.0

    def look(self) -> RunData:
        """What is known by now."""
        data = self.data
        if self._record.changed() or data.record is None:
            data.record = self._read_record()
            data.record_written_at = self._record.written_at
            self._plan = self._find_plan()
        if self._plan is not None and self._plan.changed():
            data.plan, data.experiment = self._read_plan(self._plan)
        if self._summary.changed():
            content = self._summary.content
            data.summary = None if content is None else object_of(content.decode(errors="replace"))
        for lines in (self._steps, self._held_out, self._saves, self._alarms):
            lines.look()
        data.steps, data.held_out = self._steps.items, self._held_out.items
        data.saves, data.alarms = self._saves.items, self._alarms.items
        files = (self._steps, self._held_out, self._saves, self._alarms)
        data.unreadable_lines = sum(lines.unreadable for lines in files)
        self._look_at_beats()
        if self._logs is not None:
            self._logs.look()
            data.log, data.has_logs = self._logs.lines, self._logs.any
        data.exists = bool(data.record or data.steps or data.beats or data.has_logs or data.plan)
        return data

    def _step(self, values: Mapping[str, Any]) -> Step | None:
        step = step_of(values)
        if step is not None:
            highest = self.data.highest_bytes
            if not self._steps.items:  # the first one, perhaps of a file that was written anew
                self._stages.clear()
                highest.clear()
            if len(highest) != len(step.peak_bytes):  # another layout's ranks are other ranks
                highest[:] = step.peak_bytes
            else:
                highest[:] = map(max, highest, step.peak_bytes)
            if self.data.record is not None and not self.data.record.on_processors:
                # Thousands of ranks' figures of every step are of no use, but for a processor's first steps.
                step = replace(step, peak_bytes=())
            if stages := stages_of(values):
                self._stages.append(stages)
        return step

    def _look_at_beats(self) -> None:
        now = time.monotonic()
        if now >= self._beats_at:
            self.data.beats = read_beats(self.data.path)
            self._beats_at = now + max(0.0, len(self.data.beats) / RANKS_A_SECOND - 1)

    def _read_record(self) -> RunRecord | None:
        content = self._record.content
        values = None if content is None else object_of(content.decode(errors="replace"))
        return None if values is None else record_of(values)

    def _find_plan(self) -> SmallFile | None:
        """Of the run's own copies: that of the last start, else the last one."""
        try:
            copies = recorded_plans(self.data.path)
        except OSError:
            return None
        if not copies:
            return None
        starts = () if self.data.record is None else self.data.record.starts
        named = [start.plan for start in starts if start.plan is not None][-1:]
        chosen = next((copy for copy in copies if f"{PLANS}/{copy.name}" in named), copies[-1])
        if self._plan is not None and self._plan.path.parent == chosen:
            return self._plan
        return SmallFile(chosen / "plan.json")

    def _read_plan(self, file: SmallFile) -> tuple[Plan | None, Experiment | None]:
        plan = experiment = None
        try:
            plan = None if file.content is None else Plan.model_validate_json(file.content)
        except ValidationError:
            plan = None
        try:
            experiment = load_experiment(file.path.parent / "train.yaml")
        except (VdsgenError, OSError):
            experiment = None
        return plan, experiment


def read_run(run: Path) -> RunData:
    """A run as it is now. Raises VdsgenError where nothing is there that a run would leave."""
    data = RunReader(run).look()
    if not data.exists:
        raise VdsgenError(
            f"{run}: is no run directory", remedy="name the directory that `vdsgen launch --output` was given"
        )
    return data
