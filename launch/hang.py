"""When a run hangs, and which rank it hangs of: decided from heartbeats alone, with nothing read or ended."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from vdsgen.spec.heartbeat import DONE_PHASE, STEP_PHASE, WAITING, Beat

LEAST_SECONDS = 60.0
"""No silence shorter than this is a hang, unless `--hang-seconds` says so."""
TIMES_THE_LONGEST = 10.0
"""A silence longer than so many times the longest that a phase took so far is one."""
FIRST_SECONDS = 1800.0
"""For a phase that has never ended on a run: it compiles, connects, reads a whole model."""
STILL_SECONDS = 5.0
"""A rank that shows no beat for so long does not answer. They come once a second."""
NAMED_AT_MOST = 8
SILENT = "shows no sign of life: it is stopped, or something holds its interpreter"
STATES = {
    "T": "stopped by a signal (SIGSTOP; SIGCONT would let it go on)",
    "t": "held by a debugger",
    "D": "in the kernel, waiting for a disk or a device",
    "Z": "dead",
}
"""Letters of proc_pid_stat(5) that explain why a process does not come on."""


@dataclass(frozen=True, slots=True)
class Suspect:
    """A rank that the others wait for, as far as can be seen."""

    beat: Beat
    why: str

    def __str__(self) -> str:
        return f"{named(self.beat)}, {self.beat.where()}: {self.why}"


@dataclass(frozen=True, slots=True)
class Hang:
    """A run that does not come on any more."""

    silent_seconds: float
    limit_seconds: float
    suspects: tuple[Suspect, ...]
    """Empty where every rank waits for another one."""
    others: tuple[Beat, ...]

    @property
    def step(self) -> int:
        return max((beat.step for beat in self.others), default=0) or max(
            (suspect.beat.step for suspect in self.suspects), default=0
        )

    def __str__(self) -> str:
        first = self.suspects[0] if self.suspects else None
        what = f"{named(first.beat)} is {first.why}" if first else "all ranks wait for each other"
        return f"hang: no rank came on for {self.silent_seconds:.0f} s; {what}"

    def lines(self) -> list[str]:
        """For people: who hangs, and where the others are."""
        shown = [
            f"no rank has come on for {self.silent_seconds:.0f} s ({self.limit_seconds:.0f} s are the limit)."
        ]
        shown += [f"  {suspect}" for suspect in self.suspects[:NAMED_AT_MOST]]
        if len(self.suspects) > NAMED_AT_MOST:
            shown.append(f"  and {len(self.suspects) - NAMED_AT_MOST} more")
        places = Counter(beat.where() for beat in self.others)
        for where, count in places.most_common(NAMED_AT_MOST):
            ranks = [beat.rank for beat in self.others if beat.where() == where]
            one = f"rank {ranks[0]}" if count == 1 else f"{count} ranks ({_few(ranks)})"
            verb = "waits" if count == 1 else "wait"
            shown.append(f"  {one} {verb} in {where}")
        return shown


def named(beat: Beat) -> str:
    return f"rank {beat.rank} (process {beat.pid} on {beat.host})"


class HangWatch:
    """Looks at all ranks' beats now and then; says when nothing has come on for too long.

    A run comes on when any of its ranks does: in every step all of them need each other. How long is too
    long follows from what the ranks do, and from how long that took before on this run: TIMES_THE_LONGEST
    as long, and `least_seconds` at least. What has never ended before may take FIRST_SECONDS.
    """

    def __init__(self, ranks: int, seconds: float | None = None) -> None:
        """`seconds`: what somebody has asked for; exact for steps, the least for everything else."""
        self._ranks = ranks
        self._asked = seconds
        self.least_seconds = LEAST_SECONDS if seconds is None else seconds
        self._positions: dict[int, tuple[int, int]] = {}
        self._ticks: dict[int, tuple[int, float]] = {}
        """Rank -> its last beat, and when that was first seen."""
        self._came_on: float | None = None

    def see(self, beats: Mapping[int, Beat], now: float) -> None:
        """`now`: of a clock that never goes back, in seconds."""
        for rank, beat in beats.items():
            if self._positions.get(rank) != beat.position:
                self._positions[rank] = beat.position
                self._came_on = now
            if self._ticks.get(rank, (0, 0.0))[0] != beat.tick:
                self._ticks[rank] = (beat.tick, now)
        if self._came_on is None:
            self._came_on = now

    def forgive(self, now: float) -> None:
        """The silence so far does not count."""
        self._came_on = now

    def silent_seconds(self, now: float) -> float:
        return 0.0 if self._came_on is None else now - self._came_on

    def still(self, beats: Mapping[int, Beat], now: float) -> set[int]:
        """Ranks that do not even show a beat."""
        return {rank for rank in beats if now - self._ticks.get(rank, (0, now))[1] > STILL_SECONDS}

    def limit_seconds(self, beats: Mapping[int, Beat]) -> float:
        """For what the ranks do now: where they do several things, for that which may take longest."""
        if len(beats) < self._ranks:
            return max(FIRST_SECONDS, self.least_seconds)
        return max(map(self._limit_of, beats.values()))

    def _limit_of(self, beat: Beat) -> float:
        longest = beat.longest_seconds.get(beat.phase)
        # A rank that is done shows nothing any more: its end is waited for like the end of its launcher.
        if longest is None or beat.phase == DONE_PHASE:
            return max(FIRST_SECONDS, self.least_seconds)
        if beat.phase == STEP_PHASE and self._asked is not None:
            return self._asked
        return max(self.least_seconds, TIMES_THE_LONGEST * longest)


def suspects_of(beats: Mapping[int, Beat], states: Mapping[int, str], still: Iterable[int]) -> list[Suspect]:
    """The ranks that a hang is of: what is certain first.

    A stopped process, or one that the kernel holds; else those that do not answer; else those that have not
    got as far as the others; else those that do not wait where all others do. `states`: letters of
    proc_pid_stat(5), of those ranks that it is known of."""
    held = {rank: STATES[letter] for rank, letter in states.items() if letter in STATES and rank in beats}
    if held:
        return _suspects(beats, held)
    still = set(still)
    if still and still != beats.keys():
        return _suspects(beats, dict.fromkeys(still, SILENT))
    furthest = max((beat.begun for beat in beats.values()), default=0)
    behind = [rank for rank, beat in beats.items() if beat.begun < furthest]
    if behind:
        ahead = next(beat for beat in beats.values() if beat.begun == furthest)
        return _suspects(beats, dict.fromkeys(behind, f"has not come to where others wait ({ahead.where()})"))
    busy = [rank for rank, beat in beats.items() if beat.activity not in WAITING]
    if busy and len(busy) < len(beats) and all(beats[rank].phase == STEP_PHASE for rank in beats):
        return _suspects(beats, dict.fromkeys(busy, "has not come to where others wait"))
    return []


def all_stopped(beats: Mapping[int, Beat], states: Mapping[int, str], ranks: int) -> bool:
    """Somebody has suspended the whole job, as SLURM does (`scontrol suspend`): that is no hang."""
    return len(beats) == ranks > 1 and all(states.get(rank) == "T" for rank in beats)


def _suspects(beats: Mapping[int, Beat], why: Mapping[int, str]) -> list[Suspect]:
    return [Suspect(beats[rank], why[rank]) for rank in sorted(why)]


def _few(ranks: list[int]) -> str:
    shown = ", ".join(map(str, ranks[:NAMED_AT_MOST]))
    return shown if len(ranks) <= NAMED_AT_MOST else f"{shown}, ..."
