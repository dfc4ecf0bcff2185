"""Watches a run for hangs: reads its ranks' heartbeats and states, and has their stacks written."""

from __future__ import annotations

import socket
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

from vdsgen.launch.hang import Hang, HangWatch, all_stopped, suspects_of
from vdsgen.launch.hold import LOOK, STACKS, RankState
from vdsgen.launch.stacks import ask_for_stacks
from vdsgen.launch.watch import state_of
from vdsgen.spec.heartbeat import HEARTBEATS, Beat, beat_file, read_beat

LOOK_SECONDS = 1.0
"""Between two looks at heartbeats; longer with more ranks than RANKS_A_SECOND."""
RANKS_A_SECOND = 100
STACKS_SECONDS = 2.0
"""For ranks to write their stacks, and for hosts to say how theirs are."""


class Hosts(Protocol):
    """What runs on other hosts, each tied to this process."""

    @property
    def states(self) -> Mapping[int, RankState]:
        """Of ranks there, as last told."""

    def ask(self, question: str) -> None: ...


class HangGuard:
    """Of one start."""

    def __init__(self, run: Path, launch_id: str, ranks: int, seconds: float | None) -> None:
        """Beats that an earlier start left are removed: call it before ranks start."""
        self._run, self._launch_id, self._ranks = run, launch_id, ranks
        self._watch = HangWatch(ranks, seconds)
        self._every_seconds = max(LOOK_SECONDS, ranks / RANKS_A_SECOND)
        self._next = time.monotonic() + self._every_seconds
        self.suspended = False
        """Every rank is stopped: somebody wants it so."""
        for path in (run / HEARTBEATS).glob("rank_*.json"):
            path.unlink(missing_ok=True)

    def look(self, alive: Mapping[int, int], hosts: Hosts) -> Hang | None:
        """`alive`: rank -> process, of this machine."""
        now = time.monotonic()
        if now < self._next:
            return None
        self._next = now + self._every_seconds
        beats = self._beats(alive, hosts.states)
        self._watch.see(beats, now)
        silent = self._watch.silent_seconds(now)
        if silent < self._watch.least_seconds / 2:
            self.suspended = False
            return None
        hosts.ask(LOOK)
        states = {rank: state.letter for rank, state in hosts.states.items()}
        states |= {rank: state_of(pid) for rank, pid in alive.items()}
        self.suspended = all_stopped(beats, states, self._ranks)
        if self.suspended:
            self._watch.forgive(now)
            return None
        stopped = any(states.get(rank) in ("T", "t") for rank in beats)
        limit = self._watch.least_seconds if stopped else self._watch.limit_seconds(beats)
        if silent < limit:
            return None
        suspects = suspects_of(beats, states, self._watch.still(beats, now))
        named = {suspect.beat.rank for suspect in suspects}
        others = tuple(beat for rank, beat in sorted(beats.items()) if rank not in named)
        return Hang(silent, limit, tuple(suspects), others)

    def write_stacks(self, alive: Mapping[int, int], hosts: Hosts) -> None:
        """Into the logs of all ranks that can; returns when they have had the time for it."""
        asked = [ask_for_stacks(pid) for pid in alive.values()]
        hosts.ask(STACKS)
        if any(asked) or hosts.states:
            time.sleep(STACKS_SECONDS)

    def _beats(self, alive: Mapping[int, int], there: Mapping[int, RankState]) -> dict[int, Beat]:
        """Of every rank that is known of; one that shows none yet is starting."""
        beats = {}
        pids = {rank: (state.pid, state.host) for rank, state in there.items()}
        pids |= {rank: (pid, socket.gethostname()) for rank, pid in alive.items()}
        for rank in range(self._ranks):
            beat = read_beat(beat_file(self._run, rank))
            if beat is not None and beat.rank == rank and self._is_ours(beat):
                beats[rank] = beat
            elif rank in pids:
                beats[rank] = Beat(rank, *pids[rank], self._launch_id, 0, "starting", 0, 0, "", 0)
        return beats

    def _is_ours(self, beat: Beat) -> bool:
        return not beat.launch or beat.launch.startswith(self._launch_id)
