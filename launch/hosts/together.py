"""What hosts have with each other: one shared folder, one time, one port to meet at. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from vdsgen.launch.hosts.finding import Finding
from vdsgen.launch.hosts.words import names

CLOCK_SECONDS = 1.0
"""Clocks further apart make logs and files of one moment look like those of two."""


class Exchange(NamedTuple):
    """One question for the time: when it was asked and answered here, and what the host's clock said."""

    asked_seconds: float
    told_seconds: float
    answered_seconds: float


class Offset(NamedTuple):
    """How far a host's clock is ahead of ours."""

    seconds: float
    uncertainty_seconds: float
    """Either way: the host was asked and answered within twice this time."""


def offset_of(exchanges: Sequence[Exchange]) -> Offset:
    """From the shortest exchange, whose way there and back differ least (RFC 5905, section 10)."""
    best = min(exchanges, key=lambda one: one.answered_seconds - one.asked_seconds)
    middle = (best.asked_seconds + best.answered_seconds) / 2
    return Offset(best.told_seconds - middle, (best.answered_seconds - best.asked_seconds) / 2)


def compare_clocks(offsets: Mapping[str, Offset], bound_seconds: float = CLOCK_SECONDS) -> Iterator[Finding]:
    """Hosts whose clock is certainly further from this machine's than the bound."""
    for host, offset in offsets.items():
        if abs(offset.seconds) - offset.uncertainty_seconds > bound_seconds:
            ahead = "ahead of" if offset.seconds > 0 else "behind"
            yield Finding(
                severity="warning",
                check="clocks",
                host=host,
                message=f"its clock is {abs(offset.seconds):.1f} s {ahead} this machine's "
                f"(give or take {offset.uncertainty_seconds * 1000:.0f} ms)",
                remedy="chronyc makestep there, or whatever keeps its time (timedatectl status)",
            )


class Marks(NamedTuple):
    """Tokens that were written into the run directory, and what was seen of them, by who looked."""

    written: Mapping[str, str]
    """By host; `LAUNCHER`'s own besides."""
    failed: Mapping[str, str]
    """Host -> why it could write none."""
    seen: Mapping[str, Mapping[str, str]]
    """Who looked -> host -> the token it saw there."""


LAUNCHER = "this machine"


def compare_marks(output: Path, marks: Marks) -> Iterator[Finding]:
    """Hosts that do not see what others write, or whose files others do not see."""
    for host in marks.seen:
        if host == LAUNCHER:
            continue
        lacking = _unseen(marks, host)
        remedy = f"mount the same file system at {output} on all hosts, or choose an --output on one that is"
        if LAUNCHER in lacking:
            message = f"the run directory {output} is another one there: what is written here is not in it"
        elif host in marks.failed:
            message = f"cannot write into the run directory {output}: {marks.failed[host]}"
            remedy = "make it writable there, or choose another --output"
        elif host in _unseen(marks, LAUNCHER):
            message = f"what it writes into the run directory {output} is not seen here"
        elif lacking:
            message = f"does not see what {names(lacking)} writes into the run directory {output}"
        else:
            continue
        yield Finding(severity="error", check="shared folder", host=host, message=message, remedy=remedy)


def _unseen(marks: Marks, by: str) -> list[str]:
    seen = marks.seen.get(by, {})
    return [host for host, token in marks.written.items() if host != by and seen.get(host) != token]


class Meeting(NamedTuple):
    """How hosts reached the port at which ranks will meet."""

    host: str
    """The first, which listens."""
    port: int
    taken: str | None
    """Why it could not listen."""
    unreached: Mapping[str, str]
    """Host -> why it did not reach the port."""


def compare_meeting(meeting: Meeting) -> Iterator[Finding]:
    if meeting.taken is not None:
        yield Finding(
            severity="error",
            check="ports",
            host=meeting.host,
            message=f"port {meeting.port}, at which ranks meet, is not free: {meeting.taken}",
            remedy="end it, or choose another port: MASTER_PORT=... vdsgen ...",
        )
    for host, reason in meeting.unreached.items():
        yield Finding(
            severity="error",
            check="ports",
            host=host,
            message=f"does not reach {meeting.host} at port {meeting.port}, where ranks meet: {reason}",
            remedy=f"open all ports between the hosts, and look at what {meeting.host} means there: "
            f"getent hosts {meeting.host}",
        )
