from __future__ import annotations

import time
from itertools import count
from typing import Any

import pytest

from vdsgen.model.monitoring import clock as clocks
from vdsgen.model.monitoring.clock import ACTIVITIES, WAITS, StageClock
from vdsgen.model.monitoring.gather import RankRow, stage_times


class Stopwatch:
    """Time that passes only where a test says so."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 100.0
        monkeypatch.setattr(time, "perf_counter", lambda: self.now)

    def passes(self, seconds: float) -> None:
        self.now += seconds


@pytest.fixture
def stopwatch(monkeypatch: pytest.MonkeyPatch) -> Stopwatch:
    return Stopwatch(monkeypatch)


def test_each_moment_belongs_to_the_innermost_activity(stopwatch: Stopwatch) -> None:
    clock = StageClock()
    clock.start()
    stopwatch.passes(1)
    with clock.during("optimizer"):
        stopwatch.passes(2)
        with clock.during("gather"):
            stopwatch.passes(4)
        stopwatch.passes(8)
    with clock.during("forward"):
        stopwatch.passes(16)
    stopwatch.passes(32)
    seconds = clock.finish()
    assert set(seconds) == set(ACTIVITIES)
    assert {name: value for name, value in seconds.items() if value} == {
        "other": 33,
        "optimizer": 10,
        "gather": 4,
        "forward": 16,
    }


def test_a_message_takes_as_long_as_the_quickest_of_its_kind_and_the_rest_is_bubble(
    stopwatch: Stopwatch,
) -> None:
    clock = StageClock()

    def step(*messages: tuple[str, float]) -> dict[str, float]:
        clock.start()
        for kind, seconds in messages:
            with clock.during(WAITS, kind):
                stopwatch.passes(seconds)
        return clock.finish()

    first = step(("small", 5.0), ("small", 1.0), ("large", 3.0))
    assert (first["transfer"], first["bubble"]) == (1 + 1 + 3, 4)
    second = step(("small", 2.0), ("large", 2.5))
    assert (second["transfer"], second["bubble"]) == (1 + 2.5, 1)


def test_a_rare_message_that_always_waited_takes_no_longer_than_a_larger_one(stopwatch: Stopwatch) -> None:
    """The description of a stage's first activation comes once, and waits for the first forward."""
    clock = StageClock()
    clock.start()
    messages = (("recv", 8, "a"), 5.0), (("recv", 1000, "a"), 2.0), (("recv", 10, "b"), 1.0)
    for kind, seconds in messages:
        with clock.during(WAITS, kind):
            stopwatch.passes(seconds)
    found = clock.finish()
    assert (found["transfer"], found["bubble"]) == (2 + 2 + 1, 3)


def test_nothing_is_counted_between_steps(stopwatch: Stopwatch) -> None:
    clock = StageClock()
    with clock.during("forward"):
        stopwatch.passes(5)
    clock.start()
    stopwatch.passes(1)
    assert sum(clock.finish().values()) == 1
    clock.start()
    clock.abandon()
    with clock.during("forward"):
        stopwatch.passes(5)


def test_an_accelerators_clock_is_its_events(monkeypatch: pytest.MonkeyPatch) -> None:
    """As torch.cuda.Event does: milliseconds between two places of a stream."""
    places = count()
    made = []

    class StreamEvent:
        def __init__(self, enable_timing: bool) -> None:
            assert enable_timing
            made.append(self)

        def record(self) -> None:
            self.at = next(places)

        def synchronize(self) -> None:
            pass

        def elapsed_time(self, other: Any) -> float:
            return float(1e3 * (other.at - self.at))

    class Accelerator:
        def device_name(self) -> str:
            return "cuda"

        Event = StreamEvent

    monkeypatch.setattr(clocks, "get_accelerator", Accelerator)
    clock = StageClock()
    for _ in range(2):
        clock.start()
        with clock.during("forward"):
            pass
        seconds = clock.finish()
        assert (seconds["forward"], seconds["other"]) == (1, 2)
    assert len(made) == 4, "events are used again"


def test_a_stage_is_the_mean_of_its_ranks_and_names_the_slowest() -> None:
    def row(rank: int, forward: float, peak: int) -> RankRow:
        return RankRow(peak, 0, 1.0, 0, 0, 0, 0, 0, (forward, *[0.1] * (len(ACTIVITIES) - 1)), (), ())

    rows = [row(0, 1.0, 5), row(1, 3.0, 4), row(2, 2.0, 9), row(3, 2.0, 1)]
    first, second = stage_times(rows, [0, 0, 1, 1])
    assert first.forward_seconds == 2.0
    assert (first.slowest_rank, first.slowest_compute_seconds) == (1, 3.1)
    assert (first.peak_memory_bytes, second.peak_memory_bytes) == (5, 9)
    assert second.values()["stage"] == 1
