"""When this rank runs which instruction of the pipeline's schedule, over a few steps: RUN/traces.

It takes no stamps of its own: an instruction begins and ends with a mark of the stage's clock
(vdsgen.model.monitoring.clock), which is an event on the stream that computes where there is an accelerator.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from deepspeed import comm as dist

from vdsgen.files import write_atomically
from vdsgen.model.monitoring.clock import StageClock, Timeline
from vdsgen.model.monitoring.common_clock import Alignment, align
from vdsgen.spec.run import TRACES, Layout
from vdsgen.spec.steps import Steps

OF_MICRO_BATCHES = frozenset(
    {
        "LoadMicroBatch",
        "ForwardPass",
        "BackwardPass",
        "SendActivation",
        "RecvActivation",
        "SendGrad",
        "RecvGrad",
    }
)
"""A stage does each of these once for every micro-batch, in their order (runtime/pipe/schedule.py:189)."""
DIGITS = 7
"""Of a second: tenths of a microsecond."""


class ScheduleTrace:
    """Of one rank. Costs a comparison an instruction while nothing is traced."""

    def __init__(self) -> None:
        self.running = False
        self.steps: Steps | None = None
        """What is asked for."""
        self._alignment = Alignment(0.0, 0.0)
        self._spans: list[tuple[str, int | None, int, int]] = []
        """Of the step that runs: instruction, micro-batch, and the clock's marks it begins and ends with."""
        self._counts: Counter[str] = Counter()
        self._lines: list[dict[str, Any]] = []
        self._step = 0

    def step_begins(self, step: int) -> None:
        """Collective where a trace begins."""
        if self.steps is None or step not in self.steps:
            return
        if not self.running:
            self._alignment = align()
            self.running, self._lines = True, []
        self._step = step
        self._spans, self._counts = [], Counter()

    @contextmanager
    def span(self, name: str, clock: StageClock) -> Iterator[None]:
        """Within the activity that `clock` has just begun for it."""
        if not clock.running:  # the clock stands still while held-out losses are computed
            yield
            return
        micro_batch = self._counts[name] if name in OF_MICRO_BATCHES else None
        self._counts[name] += 1
        begin = clock.changes - 1
        try:
            yield
        finally:
            self._spans.append((name, micro_batch, begin, clock.changes))

    def step_ended(self, timeline: Timeline | None) -> None:
        if self.running and timeline is not None:
            self._lines.append(_line(self._step, timeline, self._spans, self._alignment))

    def step_ends(self, step: int, run: Path, layout: Layout) -> Path | None:
        """The file that was written, where this was the last step of a trace."""
        if not self.running or self.steps is None or step < self.steps.last:
            return None
        rank = dist.get_rank()
        head = {
            "schema_version": 1,
            "rank": rank,
            "stage": layout.stage_of(rank),
            "rank_in_stage": rank % layout.stage_ranks,
            "world_size": layout.world_size,
            "clock_uncertainty_seconds": round(self._alignment.uncertainty_seconds, DIGITS),
        }
        path = schedule_file(run, self.steps, rank)
        text = "".join(json.dumps(line, separators=(",", ":")) + "\n" for line in (head, *self._lines))
        write_atomically(path, text.encode())
        self.running, self.steps, self._lines = False, None, []
        return path


def schedule_file(run: Path, steps: Steps, rank: int) -> Path:
    return run / TRACES / f"step-{steps.first:08d}-to-{steps.last:08d}" / f"rank_{rank:05d}.jsonl"


def _line(
    step: int,
    timeline: Timeline,
    spans: Sequence[tuple[str, int | None, int, int]],
    alignment: Alignment,
) -> dict[str, Any]:
    """Seconds: `began` by the first rank's clock, all others since then."""
    marks = timeline.marks
    return {
        "step": step,
        "began": round(timeline.began - alignment.offset_seconds, DIGITS),
        "seconds": round(marks[-1], DIGITS),
        "instructions": [
            [name, micro_batch, round(marks[begin], DIGITS), round(marks[end], DIGITS)]
            for name, micro_batch, begin, end in sorted(spans, key=lambda span: (span[2], -span[3]))
        ],
        "activities": [
            [one.activity, round(one.begin, DIGITS), round(one.end, DIGITS)] for one in timeline.stretches
        ],
    }
