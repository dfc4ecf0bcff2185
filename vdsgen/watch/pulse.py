"""Whether ranks still show that they run, and whether they come on."""

from __future__ import annotations

import time
from collections.abc import Mapping

from vdsgen.launch.hang import HangWatch, suspects_of
from vdsgen.runs.beats import SeenBeat, newest
from vdsgen.runs.values import one_line
from vdsgen.spec.heartbeat import Beat


class Pulse:
    """Looks at heartbeats as launching does (vdsgen.launch.hang_guard), but sees files alone: no processes.

    How old a beat is when it is first seen comes from its file's time, so both clocks have to agree; from
    then on only this process's clock counts."""

    def __init__(self) -> None:
        self._watch: HangWatch | None = None
        self._ranks = 0
        self._launch = ""
        self._first = True
        self._ticked_at: dict[int, tuple[int, float]] = {}

    def see(self, beats: Mapping[int, SeenBeat], ranks: int) -> None:
        """`ranks`: that the run should have."""
        now = time.monotonic()
        age = 0.0
        if self._first and beats:
            age = max(0.0, time.time() - (newest(beats) or 0.0))
        launch = next((seen.beat.launch for seen in beats.values()), "")
        if self._watch is None or ranks != self._ranks or launch != self._launch:
            self._watch, self._ranks, self._launch = HangWatch(ranks), ranks, launch
            self._ticked_at.clear()
        plain = _beats(beats)
        for rank, beat in plain.items():
            if self._ticked_at.get(rank, (-1, 0.0))[0] != beat.tick:
                self._ticked_at[rank] = (beat.tick, now - age)
        self._watch.see(plain, now - age)
        self._first = self._first and not beats

    def silent_seconds(self) -> float | None:
        """Since the last beat of any rank; None where there has been none."""
        if not self._ticked_at:
            return None
        return time.monotonic() - max(at for _, at in self._ticked_at.values())

    def hang(self, beats: Mapping[int, SeenBeat]) -> str | None:
        """A sentence, where no rank has come on for too long."""
        plain = _beats(beats)
        if self._watch is None or not plain:
            return None
        now = time.monotonic()
        silent = self._watch.silent_seconds(now)
        if silent < self._watch.limit_seconds(plain):
            return None
        suspects = suspects_of(plain, {}, self._watch.still(plain, now))
        who = "all wait for each other"
        if suspects:
            first = suspects[0]
            who = f"rank {first.beat.rank} on {first.beat.host}, {first.beat.where()}: {first.why}"
        return one_line(f"no rank has come on for {silent:.0f} s; {who}", 400)


def _beats(beats: Mapping[int, SeenBeat]) -> dict[int, Beat]:
    return {rank: seen.beat for rank, seen in beats.items()}
