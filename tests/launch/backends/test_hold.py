"""A host's ranks, held: no process outlives the standard input of `hold`."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
import uuid
from pathlib import Path

import pytest

from vdsgen.launch.commands import LAUNCH_ID
from vdsgen.launch.hold import RankState, death_line, main, parse_death, parse_state, state_line
from vdsgen.launch.watch import Death, processes_of

CHILD = "import os, subprocess, sys; sys.exit(subprocess.run([sys.executable, '-c', {!r}]).returncode)"
DEAF = (
    "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN);"
    "print('up', flush=True); time.sleep(60)"
)


def start(code: str, launch_id: str, **more: str) -> subprocess.Popen[str]:
    environment = {**os.environ, **more, LAUNCH_ID: launch_id, "PYTHONPATH": str(Path(__file__).parents[3])}
    return subprocess.Popen(
        [sys.executable, "-m", "vdsgen.launch.hold", "--ranks", "1", "--", sys.executable, "-c", code],
        env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip


@pytest.mark.parametrize("how", ["input", "signal"])
def test_even_deaf_ranks_end(how: str) -> None:
    launch_id = uuid.uuid4().hex
    with start(CHILD.format(DEAF), launch_id) as held:
        assert held.stdout is not None and held.stdin is not None
        assert held.stdout.readline() == "up\n"
        began = time.monotonic()
        if how == "input":
            held.stdin.close()
        else:
            held.send_signal(signal.SIGTERM)
        assert held.wait(20) == 143
        assert time.monotonic() - began < 15
        assert processes_of(launch_id) == {}


@pytest.mark.parametrize(("code", "exit_code"), [("pass", 0), ("raise SystemExit(7)", 7)])
def test_the_commands_exit_code_is_passed_on(code: str, exit_code: int) -> None:
    with start(code, uuid.uuid4().hex) as held:
        assert held.wait(20) == exit_code


def test_what_is_left_behind_ends_with_the_command() -> None:
    launch_id = uuid.uuid4().hex
    leaves = f"import subprocess, sys; subprocess.Popen([sys.executable, '-c', {DEAF!r}])"
    with start(leaves, launch_id) as held:
        assert held.wait(20) == 0
        assert processes_of(launch_id) == {}


def test_deaths_are_read_as_they_were_written() -> None:
    death = Death(3, 4711, 9, "bee")
    assert parse_death(death_line(death, "bee")) == death
    for line in ("", "hello", "[vdsgen death] 1 2 x y", "[vdsgen death] 1 2 3"):
        assert parse_death(line) is None


ANSWERS = """
import faulthandler, os, signal, subprocess, sys, time
if "RANK" in os.environ:
    faulthandler.register(signal.SIGUSR2, file=sys.stdout, chain=False)
    print("up", flush=True)
    time.sleep(60)
subprocess.run([sys.executable, "-c", sys.argv[1]], env=os.environ | {"RANK": "3"})
"""


def test_the_launchers_questions_are_answered() -> None:
    code = f"import sys; sys.argv = ['', {ANSWERS!r}]; exec(sys.argv[1])"
    with start(code, uuid.uuid4().hex) as held:
        assert held.stdout is not None and held.stdin is not None
        assert held.stdout.readline() == "up\n"
        time.sleep(0.5)
        held.stdin.write("look\n")
        held.stdin.flush()
        told = parse_state(held.stdout.readline().rstrip("\n"))
        assert told is not None
        rank, state = told
        assert (rank, state.letter, state.host) == (3, "S", os.uname().nodename)
        held.stdin.write("here\nstacks\n")
        held.stdin.flush()
        assert "most recent call first" in held.stdout.readline()
        held.stdin.close()
        assert held.wait(20) == 143


def test_states_are_read_as_they_were_written() -> None:
    state = RankState(4711, "T", "bee")
    assert parse_state(state_line(3, state)) == (3, state)
    for line in ("", "[vdsgen death] 1 2 9 bee", "[vdsgen state] x 2 T bee", "[vdsgen state] 1 2 T"):
        assert parse_state(line) is None


def test_wrong_use_is_explained(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["--ranks", "x"])
    assert ended.value.code == 2
    assert "usage" in capsys.readouterr().err
