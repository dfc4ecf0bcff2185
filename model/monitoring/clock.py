"""Where the seconds of a step go on this rank: each moment belongs to exactly one activity."""

from __future__ import annotations

import time
from collections.abc import Hashable, Iterator
from contextlib import contextmanager
from itertools import pairwise
from typing import Any, NamedTuple

import torch
from deepspeed.accelerator import get_accelerator

from vdsgen.spec.run import ACTIVITIES as ACTIVITIES

WAITS = "waits"
"""Stands for bubble and transfer until `finish` has told them apart."""


class Stretch(NamedTuple):
    """Of a step; seconds since its start."""

    activity: str
    begin: float
    end: float


class Timeline(NamedTuple):
    """One step, moment by moment."""

    began: float
    """By time.perf_counter of this process."""
    marks: tuple[float, ...]
    """Seconds since then of each change of activity, in their order."""
    stretches: tuple[Stretch, ...]
    """One after the other, without gaps, those that took any time."""


class StageClock:
    """Nested activities of one step; a moment counts for the innermost.

    On a processor the clock is the computer's. On an accelerator it is events on the stream that computes,
    which cost microseconds and no wait; what runs on other streams meanwhile is seen where that stream waits
    for it.

    How bubble and transfer are told apart: a message between two stages takes as long as the quickest of its
    kind and of its size, or a larger one, that this run has seen; whatever a rank spends on one beyond that,
    it waits for the other stage. Sends count too: one that the peer does not take yet waits for the peer.
    """

    def __init__(self) -> None:
        self.on_processor = get_accelerator().device_name() == "cpu"
        self.running = False
        self._began = 0.0
        self._stack: list[tuple[str, Hashable]] = []
        self._marks: list[tuple[Any, str, Hashable]] = []
        """(stamp, activity, kind) from that stamp to the next."""
        self._spare: list[Any] = []
        self.traced = False
        """Keep `timeline` of the steps that `start` begins from now on."""
        self.timeline: Timeline | None = None
        """Of the last step, where it was traced."""
        self._quickest: dict[Hashable, float] = {}

    def start(self) -> None:
        self.running = True
        self._stack = [("other", None)]
        self._began = time.perf_counter()
        self._marks = [(self._stamp(), "other", None)]

    @property
    def activity(self) -> str:
        """At the moment; empty outside of steps."""
        return self._stack[-1][0] if self.running else ""

    @property
    def changes(self) -> int:
        """Of activity so far in this step."""
        return len(self._marks)

    @contextmanager
    def during(self, activity: str, kind: Hashable = None) -> Iterator[None]:
        """`kind` tells messages apart whose transfer takes equally long."""
        if not self.running:
            yield
            return
        self._enter(activity, kind)
        try:
            yield
        finally:
            self._leave()

    def _enter(self, activity: str, kind: Hashable) -> None:
        self._stack.append((activity, kind))
        self._marks.append((self._stamp(), activity, kind))

    def _leave(self) -> None:
        if len(self._stack) > 1:
            self._stack.pop()
        self._marks.append((self._stamp(), *self._stack[-1]))

    def finish(self) -> dict[str, float]:
        """Seconds of each activity since `start`; they add up to what has passed. Call when the accelerator
        has nothing left to do."""
        self.running = False
        marks = [*self._marks, (self._stamp(), "", None)]
        if not self.on_processor:
            marks[-1][0].synchronize()
        seconds = dict.fromkeys(ACTIVITIES, 0.0)
        waits = []
        lengths = []
        for (begin, activity, kind), (end, _, _) in pairwise(marks):
            spent = self._seconds_between(begin, end)
            lengths.append(spent)
            if activity == WAITS:
                waits.append((kind, spent))
                self._quickest[kind] = min(spent, self._quickest.get(kind, spent))
            else:
                seconds[activity] += spent
        quickest = self._quickest_of({kind for kind, _ in waits})
        for kind, spent in waits:
            seconds["transfer"] += quickest[kind]
            seconds["bubble"] += spent - quickest[kind]
        self.timeline = self._timeline(marks, lengths, quickest) if self.traced else None
        if not self.on_processor:
            self._spare += [stamp for stamp, _, _ in marks]
        self._marks = []
        return seconds

    def _quickest_of(self, kinds: set[Hashable]) -> dict[Hashable, float]:
        """What a message of each of these kinds takes at most: a larger one by the same call between the same
        ranks has taken no less. It matters for messages that are rare, and may have waited every time."""
        found = {}
        for kind in kinds:
            alike = [self._quickest[kind]]
            if isinstance(kind, tuple):
                alike += [spent for other, spent in self._quickest.items() if _is_no_smaller(other, kind)]
            found[kind] = min(alike)
        return found

    def _timeline(
        self,
        marks: list[tuple[Any, str, Hashable]],
        lengths: list[float],
        quickest: dict[Hashable, float],
    ) -> Timeline:
        """A wait is first bubble, then transfer: what makes a message quick is that its peer is there."""
        stretches: list[Stretch] = []
        starts = [0.0]
        for (_, activity, kind), spent in zip(marks, lengths, strict=False):
            begin, end = starts[-1], starts[-1] + spent
            starts.append(end)
            if activity == WAITS:
                met = end - min(spent, quickest[kind])
                stretches += [Stretch("bubble", begin, met), Stretch("transfer", met, end)]
            else:
                stretches.append(Stretch(activity, begin, end))
        return Timeline(self._began, tuple(starts), tuple(one for one in stretches if one.end > one.begin))

    def abandon(self) -> None:
        """Forgets a step that an error has ended."""
        self.running = False
        self._marks = []

    def _stamp(self) -> Any:
        if self.on_processor:
            return time.perf_counter()
        event = self._spare.pop() if self._spare else get_accelerator().Event(enable_timing=True)
        event.record()
        return event

    def _seconds_between(self, begin: Any, end: Any) -> float:
        if self.on_processor:
            return float(end - begin)
        return float(begin.elapsed_time(end)) / 1e3


def _is_no_smaller(other: Hashable, kind: tuple[Any, ...]) -> bool:
    """Kinds are (call, bytes, group, ...), of messages that are told apart by them."""
    if not isinstance(other, tuple) or len(other) != len(kind) or len(kind) < 3:
        return False
    return bool(other[0] == kind[0] and other[2:] == kind[2:] and other[1] >= kind[1])


def processes_in(group: Any) -> tuple[int, ...]:
    """The ranks of a process group; all where it is None."""
    if group is None:
        return tuple(range(torch.distributed.get_world_size()))
    return tuple(torch.distributed.get_process_group_ranks(group))
