"""Times things again and again, in turn, so that a machine's drift hits all of them alike.

What a GPU is given one after the other it computes without a pause, as in training. Waiting for each would
time the wait: on an H200 some 20 microseconds, in which it reads 80 MB.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import NamedTuple

Samples = dict[str, list[float]]
"""Seconds of one call, by what was called."""


def _nothing() -> None:
    """A processor has computed when a call returns."""


class Device(NamedTuple):
    """Where things run, and how their time is taken."""

    name: str
    """As torch names it."""
    synchronize: Callable[[], None] = _nothing
    clock: Callable[[], float] = time.perf_counter
    """A rank with one thread takes its processor time: what other programs do meanwhile is not in it."""
    least_seconds: float = 0.0
    """What is shorter is called several times without waiting between, for about so long."""


MOST_REPEATS = 100


def sample(
    calls: Mapping[str, Callable[[], object]],
    budget_seconds: float,
    device: Device,
    least_rounds: int = 5,
) -> Samples:
    """Calls everything in turn until the budget is spent, `least_rounds` times at least.

    The first round warms up and is not counted. A sample is the mean of the calls that it took.
    """
    for call in calls.values():
        call()
    device.synchronize()
    repeats = {name: _repeats(call, device) for name, call in calls.items()}
    samples: Samples = {name: [] for name in calls}
    deadline = time.perf_counter() + budget_seconds
    rounds = 0
    while rounds < least_rounds or time.perf_counter() < deadline:
        for name, call in calls.items():
            samples[name].append(_seconds(call, device, repeats[name]))
        rounds += 1
    return samples


def _repeats(call: Callable[[], object], device: Device) -> int:
    if not device.least_seconds:
        return 1
    once = _seconds(call, device, 1)
    return max(1, min(MOST_REPEATS, round(device.least_seconds / max(once, 1e-9))))


def _seconds(call: Callable[[], object], device: Device, repeats: int) -> float:
    """Of one of `repeats` calls in a row."""
    start = device.clock()
    for _ in range(repeats):
        call()
    device.synchronize()
    return (device.clock() - start) / repeats
