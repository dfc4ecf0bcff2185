"""Watching the ranks that run on this machine: who died first, of what, and whether any is left."""

from __future__ import annotations

import os
import select
import signal
import time
from dataclasses import dataclass
from pathlib import Path

from vdsgen.launch.commands import LAUNCH_ID

PROC = Path("/proc")
END_SECONDS = 30.0
"""For the kernel to take back the memory of killed processes."""


@dataclass(frozen=True, slots=True)
class Death:
    """A rank that is gone. `status` as wait(2) gives it; None where nobody could read it in time."""

    rank: int
    pid: int
    status: int | None
    host: str | None = None
    """None: this machine."""

    @property
    def failed(self) -> bool:
        """Known to have failed; an unread status says nothing."""
        return self.status not in (0, None)

    @property
    def exit_code(self) -> int | None:
        """As a shell reports it: the code, or 128 + the signal's number."""
        if self.status is None:
            return None
        return 128 + os.WTERMSIG(self.status) if os.WIFSIGNALED(self.status) else os.WEXITSTATUS(self.status)

    def __str__(self) -> str:
        on = f" on {self.host}" if self.host else ""
        who = f"rank {self.rank} (process {self.pid}{on})"
        if self.status is None:
            return f"{who} is gone"
        if os.WIFSIGNALED(self.status):
            return f"{who} was killed by {signal.Signals(os.WTERMSIG(self.status)).name}"
        return f"{who} exited with code {os.WEXITSTATUS(self.status)}"


class RankWatch:
    """Finds the ranks of one launch among this machine's processes, and learns of each one's end at once.

    DeepSpeed's launcher and torchrun ask their ranks once a second which has ended (launcher/launch.py:289)
    and never say which was first; by then the others have lost their peer and died too. A pidfd becomes
    readable the moment its process ends, while the process still waits to be reaped and /proc has its status.
    """

    def __init__(self, launch_id: str, ranks: int) -> None:
        self._launch_id = launch_id
        self._ranks = ranks
        self._descriptors: dict[int, tuple[int, int]] = {}
        """Process file descriptor -> rank, pid; of those alive."""
        self._found: set[int] = set()
        self.deaths: list[Death] = []
        """In the order they were seen."""

    def wait(self, seconds: float) -> None:
        """Look for ranks not seen yet, then wait until one dies, `seconds` at most."""
        if len(self._found) < self._ranks:
            self._discover()
        poll = select.poll()
        for descriptor in self._descriptors:
            poll.register(descriptor, select.POLLIN)
        for descriptor, _ in poll.poll(seconds * 1000):
            rank, pid = self._descriptors.pop(descriptor)
            self.deaths.append(Death(rank, pid, _exit_status(pid)))
            os.close(descriptor)

    @property
    def alive(self) -> dict[int, int]:
        """Rank -> process, of those that were found and have not ended."""
        return dict(self._descriptors.values())

    @property
    def first_failure(self) -> Death | None:
        """The rank that brought the job down."""
        return next((death for death in self.deaths if death.failed), None)

    @property
    def all_ended(self) -> bool:
        return len(self.deaths) == self._ranks

    def close(self) -> None:
        for descriptor in self._descriptors:
            os.close(descriptor)
        self._descriptors.clear()

    def _discover(self) -> None:
        for pid, environment in processes_of(self._launch_id).items():
            rank = environment.get("RANK", "")
            if not rank.isdecimal() or int(rank) in self._found or not _is_rank(pid):
                continue
            try:
                descriptor = os.pidfd_open(pid)
            except ProcessLookupError:
                continue
            self._found.add(int(rank))
            self._descriptors[descriptor] = (int(rank), pid)


def processes_of(launch_id: str) -> dict[int, dict[str, str]]:
    """Every process of a launch on this machine, pid -> its environment at its start."""
    found = {}
    for entry in PROC.iterdir():
        if not entry.name.isdecimal() or int(entry.name) == os.getpid():
            continue
        environment = _environment(int(entry.name))
        if environment.get(LAUNCH_ID) == launch_id:
            found[int(entry.name)] = environment
    return found


def kill_all(launch_id: str) -> list[int]:
    """End every process of a launch with SIGKILL, until none is left. Returns their pids.

    A killed process ends when the kernel has taken its memory back, which takes a moment: each is waited
    for. One that the kernel cannot end (waiting for a dead disk) is left after END_SECONDS.
    """
    killed: list[int] = []
    while pids := [pid for pid in processes_of(launch_id) if pid not in killed]:
        killed += pids
        ending = []
        for pid in pids:
            try:
                ending.append(os.pidfd_open(pid))
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
        _wait_for_end(ending)
    return killed


def _wait_for_end(descriptors: list[int]) -> None:
    """Until the processes have ended, and closes their descriptors."""
    deadline = time.monotonic() + END_SECONDS
    for descriptor in descriptors:
        poll = select.poll()
        poll.register(descriptor, select.POLLIN)
        poll.poll(max(0.0, deadline - time.monotonic()) * 1000)
        os.close(descriptor)


def _is_rank(pid: int) -> bool:
    """A rank's parent is the launcher, which has no rank; its loader workers' parents have one."""
    parent = _stat(pid, 4)
    return parent is not None and "RANK" not in _environment(parent)


def _environment(pid: int) -> dict[str, str]:
    try:
        raw = (PROC / str(pid) / "environ").read_bytes()
    except OSError:
        # Ended, or another user's.
        return {}
    pairs = (entry.partition(b"=") for entry in raw.split(b"\0") if entry)
    return {key.decode(errors="replace"): value.decode(errors="replace") for key, _, value in pairs}


def _exit_status(pid: int) -> int | None:
    """Of a process that has ended and that nobody has waited for yet: field 52 of proc_pid_stat(5)."""
    return _stat(pid, 52) if state_of(pid) in ("Z", "X") else None


def state_of(pid: int) -> str:
    """The letter of proc_pid_stat(5); empty where there is no such process."""
    fields = _fields(pid)
    return fields[0] if fields else ""


def _stat(pid: int, field: int) -> int | None:
    """A number of proc_pid_stat(5), counted from 1 as its manual page does."""
    fields = _fields(pid)
    return int(fields[field - 3]) if fields else None


def _fields(pid: int) -> list[str]:
    """Fields from the third on; the second, the command in parentheses, may hold anything."""
    try:
        return (PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()
    except OSError:
        return []
