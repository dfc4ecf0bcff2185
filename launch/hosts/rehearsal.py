"""Two steps of the real job, as its launcher starts it, in a run directory that is removed afterwards."""

from __future__ import annotations

import json
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from vdsgen.errors import VdsgenError
from vdsgen.launch.hosts.expected import Expected
from vdsgen.launch.hosts.finding import Finding
from vdsgen.launch.hosts.words import size
from vdsgen.launch.run import Outcome, run
from vdsgen.launch.start import Prepared
from vdsgen.spec.base import NonNegativeFloat, NonNegativeInt, Spec
from vdsgen.spec.run import MESSAGE, STEP, read_json_object

STEPS = 2
LAST_MESSAGES = 12


class RehearsedRank(Spec):
    rank: NonNegativeInt
    host: str
    peak_bytes: NonNegativeInt
    """The highest of its steps."""
    planned_bytes: NonNegativeInt
    """The same figure, predicted: without the reserve."""


class Rehearsal(Spec):
    """What the steps measured."""

    seconds: NonNegativeFloat
    """From the first process to the last one's end."""
    step_seconds: tuple[NonNegativeFloat, ...]
    planned_step_seconds: NonNegativeFloat
    memory_meaning: str
    ranks: tuple[RehearsedRank, ...]


class InterruptedRehearsalError(Exception):
    """This process was told to stop by a signal."""

    def __init__(self, number: int) -> None:
        super().__init__(f"signal {number}")
        self.exit_code = 128 + number


class Audience:
    """Keeps what ranks and launcher say, and ends the run after `limit_seconds`."""

    def __init__(self, limit_seconds: float, show: Callable[[str], None]) -> None:
        self.messages: list[str] = []
        self.timed_out = False
        self._said: dict[str, int] = {}
        """Message -> the rank that was first to say it."""
        self._deadline = time.monotonic() + limit_seconds
        self._show = show

    def rank_line(self, rank: int, line: str) -> None:
        if line.startswith(STEP):
            self._show(f"Rehearsing: {line.removeprefix(STEP)}")
        elif line.startswith(MESSAGE):
            text = line.removeprefix(MESSAGE)
            if self._said.setdefault(text, rank) == rank:
                self.messages.append(f"rank {rank}: {text}" if rank else text)

    def say(self, text: str) -> None:
        self.messages.append(text)

    def refresh(self) -> None:
        """Called several times a second, by the thread that the run's own signal handlers run in."""
        if time.monotonic() > self._deadline and not self.timed_out:
            self.timed_out = True
            signal.raise_signal(signal.SIGTERM)

    def close(self) -> None: ...


def rehearse(
    prepared: Prepared, expected: Expected, limit_seconds: float, show: Callable[[str], None]
) -> tuple[Rehearsal | None, list[Finding]]:
    """`prepared`: the job with `STEPS` steps, measuring, into a folder of its own. Raises
    InterruptedRehearsalError where this process is told to stop."""
    audience, began = Audience(limit_seconds, show), time.monotonic()
    outcome = run(prepared.commands, prepared.job, prepared.launch_id, audience)
    seconds = time.monotonic() - began
    if outcome.stopped_by is not None and not audience.timed_out:
        raise InterruptedRehearsalError(outcome.stopped_by)
    if audience.timed_out or outcome.exit_code != 0:
        return None, [_failure(outcome, audience, expected, limit_seconds)]
    try:
        rehearsal = read_rehearsal(prepared.job.output, expected, seconds)
    except (VdsgenError, OSError, KeyError, TypeError, ValueError) as error:
        message = f"ended well, but left no figures: {error}"
        return None, [_finding("error", expected.hosts[0].name, message, None)]
    return rehearsal, list(compare_peaks(expected, rehearsal))


def read_rehearsal(run_directory: Path, expected: Expected, seconds: float) -> Rehearsal:
    """From what the trainer wrote."""
    lines = (run_directory / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    metrics: list[dict[str, Any]] = [json.loads(line) for line in lines]
    summary = read_json_object(run_directory / "summary.json")
    peaks = [max(of_rank) for of_rank in zip(*(step["peak_memory_bytes"] for step in metrics), strict=True)]
    ranks = [(host.name, rank) for host in expected.hosts for rank in host.ranks]
    return Rehearsal(
        seconds=seconds,
        step_seconds=tuple(float(step["step_seconds"]) for step in metrics),
        planned_step_seconds=float(summary["predicted"]["step_seconds"]),
        memory_meaning=str(summary["measured"]["memory_meaning"]),
        ranks=tuple(
            RehearsedRank(
                rank=rank.rank,
                host=host,
                peak_bytes=peak,
                planned_bytes=rank.stage.measured_bytes(on_processor=expected.on_cpu),
            )
            for (host, rank), peak in zip(ranks, peaks, strict=True)
        ),
    )


def compare_peaks(expected: Expected, rehearsal: Rehearsal) -> list[Finding]:
    """Ranks that took more than the plan has room for, its reserve included."""
    found = []
    stages = {rank.rank: rank.stage for rank in expected.ranks}
    for one in rehearsal.ranks:
        room = one.planned_bytes + stages[one.rank].memory.reserve_bytes
        if one.peak_bytes > room:
            message = (
                f"rank {one.rank} took {size(one.peak_bytes)} at its peak, the plan has "
                f"{size(one.planned_bytes)} for it and {size(room - one.planned_bytes)} in reserve"
            )
            remedy = (
                "raise memory_reserve_fraction in the lab file and generate again: a longer run may need "
                "still more"
            )
            found.append(_finding("warning", one.host, message, remedy))
    return found


def _failure(outcome: Outcome, audience: Audience, expected: Expected, limit_seconds: float) -> Finding:
    """The rank that failed first, its host, and what it said."""
    first = outcome.first_failure
    lines = [line.rstrip() for said in audience.messages for line in said.splitlines() if line.strip()]
    last = "\n".join(f"    {line.strip()}" for line in lines[-LAST_MESSAGES:])
    if audience.timed_out:
        message = f"two steps were not done within {limit_seconds:.0f} s; the last that was said:\n{last}"
        remedy = (
            "--rehearsal-seconds for a model that takes longer to load; else see which rank waits for what"
        )
        return _finding("error", expected.hosts[0].name, message, remedy)
    hosts = {rank.rank: host.name for host in expected.hosts for rank in host.ranks}
    host = expected.hosts[0].name if first is None else hosts.get(first.rank, expected.hosts[0].name)
    who = "the launcher" if first is None else f"rank {first.rank}"
    message = f"{who} failed with code {outcome.exit_code}:\n{last}"
    return _finding("error", host, message, "put that right; nothing of the rehearsal is left behind")


def _finding(severity: Any, host: str, message: str, remedy: str | None) -> Finding:
    return Finding(severity=severity, check="rehearsal", host=host, message=message, remedy=remedy)
