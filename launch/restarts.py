"""Starting a run again that has failed, as long as there is hope."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from vdsgen.launch import starts
from vdsgen.launch.aside import put_aside
from vdsgen.launch.progress import Shows, duration
from vdsgen.launch.run import HUNG, STOPPING, Outcome, Stop
from vdsgen.spec.checkpoints import read_checkpoints
from vdsgen.spec.launching import Restarts

ALIKE = 3
"""Starts in a row that fail at the same step in the same way: the fault is the run's own."""
HOPELESS = {2: "bad input", 4: "a diverged loss"}
"""Exit codes that every further start would end with as well."""


@dataclass(frozen=True, slots=True)
class Failure:
    """How a start ended."""

    exit_code: int
    rank: int | None
    """That failed first, or hangs; None where none was seen to."""
    step: int
    """The last one in the metrics."""
    what: str
    trained: bool = True
    """The start made a step, be it one that an earlier one had made."""

    def is_like(self, other: Failure) -> bool:
        """Where it is known what failed: a host that is away may come back, however often it is asked."""
        known = self.rank is not None or self.exit_code == HUNG
        return known and self._way == other._way

    @property
    def _way(self) -> tuple[int, int | None, int, bool]:
        return self.exit_code, self.rank, self.step, self.trained


@dataclass(frozen=True, slots=True)
class Again:
    """Start once more, after so many seconds."""

    delay_seconds: float


@dataclass(frozen=True, slots=True)
class GiveUp:
    """Do not, because of this."""

    reason: str


def decide(policy: Restarts, failures: list[Failure]) -> Again | GiveUp:
    """After the failures of all starts so far, the last one's at the end."""
    last, done = failures[-1], len(failures) - 1
    if last.exit_code in HOPELESS:
        return GiveUp(f"{HOPELESS[last.exit_code]} (exit code {last.exit_code}) would end every start")
    if done >= policy.limit:
        return GiveUp(f"the {policy.limit} restarts that were allowed are used up")
    if len(failures) >= ALIKE and all(failure.is_like(last) for failure in failures[-ALIKE:]):
        return GiveUp(f"{ALIKE} starts in a row ended at step {last.step} in the same way: {last.what}")
    return Again(policy.delay_after(in_vain(failures)))


def in_vain(failures: list[Failure]) -> int:
    """Starts at the end of the list that came to no step."""
    return next((count for count, failure in enumerate(reversed(failures)) if failure.trained), len(failures))


def policy_text(policy: Restarts, hang_seconds: float | None) -> str:
    """For people: what becomes of a run that fails, and when one is taken to hang."""
    if policy.limit:
        again = (
            f"restarts: {policy.limit} at most, from the last checkpoint, {policy.delay_seconds:g} s after a "
            "failure, twice as long after each start that comes to no step, "
            f"{policy.longest_delay_seconds:g} s at most"
        )
    else:
        again = "restarts: none"
    if hang_seconds == 0:
        return f"{again}; hangs are not looked for"
    limit = "ten times the longest, at least 60 s" if hang_seconds is None else f"{hang_seconds:g} s"
    return f"{again}; a hang is a step without a sign of life for {limit}"


def failure_of(outcome: Outcome, step: int, *, trained: bool = True) -> Failure:
    death, hang = outcome.first_failure, outcome.hang
    if hang is not None:
        rank = hang.suspects[0].beat.rank if hang.suspects else None
        return Failure(HUNG, rank, step, str(hang), trained)
    if death is not None:
        what = str(death)
    elif outcome.lost_host is not None:
        what = f"no connection to {outcome.lost_host}"
    else:
        what = f"exit code {outcome.exit_code}, no rank was seen to fail"
    return Failure(outcome.exit_code, None if death is None else death.rank, step, what, trained)


def run_again_and_again(
    attempt: Callable[[bool], Outcome],
    run: Path,
    policy: Restarts,
    display: Shows,
    *,
    resume: bool,
) -> int:
    """`attempt(resume)` until one succeeds, is stopped by a signal, or the policy gives up. Returns the last
    one's exit code; 128 + N where signal N came between two."""
    failures: list[Failure] = []
    while True:
        start = starts.begin(run)
        outcome = attempt(resume)
        if outcome.exit_code == 0:
            return 0
        reached = starts.last_step(run)
        failures.append(failure_of(outcome, reached, trained=starts.has_trained(run, start)))
        stopped = outcome.stopped_by is not None
        end = (
            f"stopped by {signal.Signals(outcome.stopped_by).name}"
            if outcome.stopped_by
            else failures[-1].what
        )
        starts.record_end(run, start, end, reached)
        if stopped or (policy.limit == 0):
            return outcome.exit_code
        decision = decide(policy, failures)
        if isinstance(decision, GiveUp):
            display.say(f"Not restarted: {decision.reason}.")
            return outcome.exit_code
        number = len(failures)
        saved = [record.step for record in read_checkpoints(run)[0].values()]
        resume = bool(saved)
        moved = [] if resume else put_aside(run, number)
        display.say(_announcement(number, policy.limit, decision, reached, saved, moved))
        if (told := _pause(decision.delay_seconds)) is not None:
            display.say(f"Stopped by {signal.Signals(told).name}; no process is left.")
            return 128 + told


def _announcement(
    number: int, limit: int, decision: Again, reached: int, saved: list[int], moved: list[Path]
) -> str:
    when = f" in {duration(decision.delay_seconds)}" if decision.delay_seconds >= 1 else ""
    head = f"Restart {number} of {limit}{when}: "
    if saved:
        lost = max(0, reached - max(saved))
        again = f"; {lost} step{'s' if lost != 1 else ''} after it are made again" if lost else ""
        return f"{head}from the checkpoint of step {max(saved)}{again}."
    aside = f"; what was there is now {', '.join(path.name for path in moved)}" if moved else ""
    gone = f" ({reached} step{'s are' if reached != 1 else ' is'} lost)" if reached else ""
    return f"{head}from the beginning, there is no checkpoint yet{gone}{aside}."


def _pause(seconds: float) -> int | None:
    """The signal that came meanwhile."""
    stop = Stop()
    heard = [number for number in STOPPING if signal.getsignal(number) is not signal.SIG_IGN]
    previous = {number: signal.signal(number, stop) for number in heard}
    try:
        until = time.monotonic() + seconds
        while stop.signal is None and (left := until - time.monotonic()) > 0:
            time.sleep(min(0.2, left))
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
    return stop.signal
