"""The ranks of one host, for a launcher on another one:

    python -m vdsgen.launch.hold --ranks N [--silence SECONDS] -- COMMAND...

Runs COMMAND, says on standard output which rank ends of what, and leaves no process behind: when a rank
fails, when it is told to stop, and when its standard input ends or falls silent, which it does when the
launcher or the connection to it is gone, however they went (`vdsgen.launch.tie`). Two words on it are
questions: `look` is answered by a line a rank with the state of its process, `stacks` by the ranks
themselves, into their logs.
"""

from __future__ import annotations

import argparse
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

from vdsgen.launch.commands import LAUNCH_ID
from vdsgen.launch.stacks import ask_for_stacks
from vdsgen.launch.tie import SILENCE_SECONDS, HostsEnd
from vdsgen.launch.watch import Death, RankWatch, kill_all, state_of
from vdsgen.spec.run import LAUNCHER_PROCESS

LOOK_SECONDS = 0.2
GRACE_SECONDS = 5.0
"""For COMMAND to end its ranks, before everything is killed."""
DEATH = "[vdsgen death] "
"""Begins the line that says how a rank failed: rank, process id, status as wait(2) gives it, host."""

STATE = "[vdsgen state] "
"""Begins the line that says how a rank's process is: rank, process id, letter of proc_pid_stat(5), host."""
LOOK, STACKS = "look", "stacks"


@dataclass(frozen=True, slots=True)
class RankState:
    """How a rank's process on another host is."""

    pid: int
    letter: str
    host: str


def state_line(rank: int, state: RankState) -> str:
    return f"{STATE}{rank} {state.pid} {state.letter} {state.host}"


def parse_state(line: str) -> tuple[int, RankState] | None:
    """None for every other line."""
    words = line.removeprefix(STATE).split()
    if not line.startswith(STATE) or len(words) != 4 or not (words[0].isdecimal() and words[1].isdecimal()):
        return None
    return int(words[0]), RankState(int(words[1]), words[2], words[3])


def death_line(death: Death, host: str) -> str:
    return f"{DEATH}{death.rank} {death.pid} {death.status} {host}"


def parse_death(line: str) -> Death | None:
    """None for every other line."""
    words = line.removeprefix(DEATH).split()
    if not line.startswith(DEATH) or len(words) != 4 or not all(word.isdecimal() for word in words[:3]):
        return None
    rank, pid, status = map(int, words[:3])
    return Death(rank, pid, status, words[3])


def hold(command: Sequence[str], ranks: int, tie: HostsEnd) -> int:
    """Exit code: that of the rank that failed first, as a shell reports it, else the command's; 143 when told
    to end."""
    launch_id = os.environ[LAUNCH_ID]
    # Should even this process be killed, its ranks end by themselves.
    os.environ[LAUNCHER_PROCESS] = str(os.getpid())
    os.environ["PATH"] = f"{Path(sys.executable).parent}:{os.environ.get('PATH', os.defpath)}"
    told: list[int] = []

    def stop(number: int, _frame: FrameType | None) -> None:
        told.append(number)

    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, stop)
    watch = RankWatch(launch_id, ranks)
    process = subprocess.Popen(  # noqa: S603 - an argument list
        command, stdin=subprocess.DEVNULL, start_new_session=True
    )
    said, deadline = False, None
    try:
        while process.poll() is None and (deadline is None or time.monotonic() < deadline):
            watch.wait(LOOK_SECONDS)
            if watch.first_failure is not None and not said and not told:
                said = True
                print(death_line(watch.first_failure, socket.gethostname()), flush=True)
            words = tie.words()
            _answer(words or [], watch)
            ending = bool(told) or words is None
            if deadline is None and (ending or said):
                deadline = time.monotonic() + GRACE_SECONDS
                if ending:
                    os.killpg(process.pid, signal.SIGTERM)
                    told.append(signal.SIGTERM)
        code = process.poll()
    finally:
        kill_all(launch_id)
        process.wait()
        watch.close()
    if watch.first_failure is not None and not told:
        return watch.first_failure.exit_code or 1
    if told:
        return 128 + signal.SIGTERM
    return 1 if code is None else code if code >= 0 else 128 - code


def _answer(words: Sequence[str], watch: RankWatch) -> None:
    for rank, pid in watch.alive.items():
        if LOOK in words:
            print(state_line(rank, RankState(pid, state_of(pid) or "X", socket.gethostname())), flush=True)
        if STACKS in words:
            ask_for_stacks(pid)


def main(arguments: Sequence[str]) -> int:
    options = argparse.ArgumentParser(prog="python -m vdsgen.launch.hold", allow_abbrev=False)
    options.add_argument("--ranks", type=int, required=True)
    options.add_argument("--silence", type=float, default=SILENCE_SECONDS, help="seconds")
    options.add_argument("command", nargs="+")
    told = options.parse_args(arguments)
    return hold(told.command, told.ranks, HostsEnd(sys.stdin.fileno(), told.silence))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
