"""Times things again and again, in turn, so that a machine's drift hits all of them alike."""

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


def sample(
    calls: Mapping[str, Callable[[], object]],
    budget_seconds: float,
    device: Device,
    least_rounds: int = 5,
) -> Samples:
    """Calls everything in turn until the budget is spent, `least_rounds` times at least.

    The first round warms up and is not counted.
    """
    for call in calls.values():
        call()
    device.synchronize()
    samples: Samples = {name: [] for name in calls}
    deadline = time.perf_counter() + budget_seconds
    rounds = 0
    while rounds < least_rounds or time.perf_counter() < deadline:
        for name, call in calls.items():
            start = device.clock()
            call()
            device.synchronize()
            samples[name].append(device.clock() - start)
        rounds += 1
    return samples
