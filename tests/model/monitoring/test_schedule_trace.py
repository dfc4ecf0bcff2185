"""A trace of the schedule in one process; of a pipeline's ranks: tests/model/test_train.py."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.model.monitoring.test_clock import Stopwatch, stopwatch
from vdsgen.model.monitoring import schedule_trace
from vdsgen.model.monitoring.clock import WAITS, StageClock
from vdsgen.model.monitoring.common_clock import Alignment, alignment
from vdsgen.model.monitoring.schedule_trace import ScheduleTrace
from vdsgen.spec.run import Layout
from vdsgen.spec.steps import Steps

__all__ = ["stopwatch"]
LAYOUT = Layout(
    pipeline_parallel_size=2, data_parallel_size=2, zero_stage=1, partition=(0, 3, 6), dtype="bf16"
)


@pytest.fixture
def alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rank 3, whose clock is ten seconds ahead of the first rank's."""
    monkeypatch.setattr(schedule_trace, "align", lambda: Alignment(10.0, 0.25))
    monkeypatch.setattr("deepspeed.comm.get_rank", lambda: 3)


def test_instructions_and_what_their_time_went_to(tmp_path: Path, stopwatch: Stopwatch, alone: None) -> None:
    clock, trace = StageClock(), ScheduleTrace()
    trace.steps = Steps(2, 2)

    def instruct(activity: str, name: str, seconds: float, waits: float = 0.0) -> None:
        with clock.during(activity):
            if not trace.running:
                return
            with trace.span(name, clock):
                stopwatch.passes(seconds)
                if waits:
                    with clock.during(WAITS, "message"):
                        stopwatch.passes(waits)

    written = None
    for step in (1, 2, 3):
        trace.step_begins(step)
        clock.traced = trace.running
        clock.start()
        instruct("forward", "ForwardPass", 2.0)
        instruct("transfer", "SendActivation", 0.0, waits=1.0)
        instruct("forward", "ForwardPass", 2.0)
        instruct("transfer", "SendActivation", 0.5, waits=4.0)
        instruct("optimizer", "OptimizerStep", 1.0)
        clock.finish()
        trace.step_ended(clock.timeline)
        with trace.span("ForwardPass", clock):
            pass  # of held-out losses, between steps
        written = trace.step_ends(step, tmp_path, LAYOUT) or written
    assert written == tmp_path / "traces" / "step-00000002-to-00000002" / "rank_00003.jsonl"
    head, line = map(json.loads, written.read_text().splitlines())
    assert head == {
        "schema_version": 1,
        "rank": 3,
        "stage": 1,
        "rank_in_stage": 1,
        "world_size": 4,
        "clock_uncertainty_seconds": 0.25,
    }
    assert line["instructions"] == [
        ["ForwardPass", 0, 0.0, 2.0],
        ["SendActivation", 0, 2.0, 3.0],
        ["ForwardPass", 1, 3.0, 5.0],
        ["SendActivation", 1, 5.0, 9.5],
        ["OptimizerStep", None, 9.5, 10.5],
    ]
    assert line["activities"] == [
        ["forward", 0.0, 2.0],
        ["transfer", 2.0, 3.0],
        ["forward", 3.0, 5.0],
        ["transfer", 5.0, 5.5],
        ["bubble", 5.5, 8.5],  # beyond what the quickest message took
        ["transfer", 8.5, 9.5],
        ["optimizer", 9.5, 10.5],
    ]
    assert line["seconds"] == 10.5
    assert not trace.running and trace.steps is None


def test_ranks_of_one_host_have_one_clock_and_others_are_compared_at_meetings() -> None:
    found = [
        ("a", (1.0, 2.0, 3.0)),
        ("a", (1.5, 2.5, 3.5)),
        ("b", (101.0, 102.1, 103.0)),
        ("b", (101.2, 102.1, 102.8)),
    ]
    assert alignment(found, 1) == Alignment(0.0, 0.0)
    offset, uncertainty = alignment(found, 2)
    assert offset == pytest.approx(100.1)
    assert uncertainty == pytest.approx(0.1)
    assert alignment(found, 3) == alignment(found, 2)


def test_steps_that_a_restart_has_left_behind_are_not_traced(tmp_path: Path, alone: None) -> None:
    """Nor is the trace of the start that came to them written over."""
    trace = ScheduleTrace()
    trace.steps = Steps(12, 13)
    trace.step_begins(21)
    assert not trace.running
    assert trace.step_ends(21, tmp_path, LAYOUT) is None
