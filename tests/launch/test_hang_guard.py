"""Hangs of real processes are seen, named and ended."""

from __future__ import annotations

import io
import signal
import sys
import textwrap
import time
import uuid
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from tests.launch.test_commands import job
from tests.launch.test_hang import beat
from tests.launch.test_run import LAUNCHER, display_on
from vdsgen.launch import hang_guard
from vdsgen.launch.commands import LAUNCH_ID, Command
from vdsgen.launch.hang_guard import HangGuard
from vdsgen.launch.hold import LOOK, STACKS, RankState
from vdsgen.launch.run import run
from vdsgen.launch.stacks import ask_for_stacks
from vdsgen.launch.watch import processes_of
from vdsgen.spec.heartbeat import HEARTBEATS, Beat, beat_file

RANK = """
import os, pathlib, signal, sys, time
from vdsgen.model.heartbeat import Heart, write_stacks_when_asked
write_stacks_when_asked()
heart = Heart(0.1)
heart.start(pathlib.Path({run!r}), os.environ)
for step in (1, 2, 3):
    heart.begin("step", step)
    time.sleep(0.2)
{then}
"""


class NoHosts:
    """And what they are asked."""

    def __init__(self, states: Mapping[int, RankState] | None = None) -> None:
        self.states, self.asked = states or {}, list[str]()

    def ask(self, question: str) -> None:
        self.asked.append(question)


def test_a_stopped_rank_is_named_and_the_others_leave_their_stacks(tmp_path: Path) -> None:
    launch_id = uuid.uuid4().hex
    waits = "def waits_for_rank_1():\n    time.sleep(60)\nwaits_for_rank_1()"
    ranks = [waits, "os.kill(os.getpid(), signal.SIGSTOP)"]
    codes = [RANK.format(run=str(tmp_path), then=textwrap.dedent(then)) for then in ranks]
    command = Command(
        (sys.executable, "-c", LAUNCHER, str(tmp_path / "logs"), *codes),
        {LAUNCH_ID: launch_id, "RANK": None, "PYTHONPATH": str(Path(__file__).parents[2])},
        2,
    )
    stream = io.StringIO()
    guard = HangGuard(tmp_path, launch_id, 2, 2.0)
    outcome = run((command,), job(output=tmp_path), launch_id, display_on(stream, tmp_path), guard)
    assert processes_of(launch_id) == {}
    assert outcome.exit_code == 5
    assert outcome.hang is not None
    assert [suspect.beat.rank for suspect in outcome.hang.suspects] == [1]
    shown = stream.getvalue()
    assert "error: the run hangs: no rank has come on for " in shown
    assert "step 3: stopped by a signal (SIGSTOP" in shown
    assert "  rank 0 waits in step 3\n" in shown
    assert "in waits_for_rank_1" in (tmp_path / "logs" / "20260101000000_rank0.log").read_text()


def guarded(tmp_path: Path, *beats: Beat, ranks: int = 2) -> HangGuard:
    """Whose silence has lasted for longer than any limit but that of what has never ended."""
    guard = HangGuard(tmp_path, "id", ranks, 5.0)
    show(tmp_path, *beats)
    guard._every_seconds = 0.0
    guard._next = 0.0
    guard.look({}, NoHosts())
    assert guard._watch._came_on is not None
    guard._watch._came_on -= 1000
    return guard


def show(tmp_path: Path, *beats: Beat) -> None:
    for one in beats:
        path = beat_file(tmp_path, one.rank)
        path.parent.mkdir(exist_ok=True)
        path.write_text(one.text())


@pytest.fixture
def states(monkeypatch: pytest.MonkeyPatch) -> dict[int, str]:
    """Process -> the letter that the kernel gives it."""
    letters: dict[int, str] = {}
    monkeypatch.setattr(hang_guard, "state_of", lambda pid: letters.get(pid, "S"))
    return letters


def test_a_suspended_job_is_left_alone(tmp_path: Path, states: dict[int, str]) -> None:
    guard = guarded(tmp_path, beat(0), beat(1))
    states.update({100: "T", 101: "T"})
    assert guard.look({0: 100, 1: 101}, NoHosts()) is None
    assert guard.suspended
    states.clear()
    assert guard.look({0: 100, 1: 101}, NoHosts()) is None, "the silence of the suspension does not count"
    assert not guard.suspended


def test_a_rank_that_is_stopped_before_it_shows_a_beat_is_named(
    tmp_path: Path, states: dict[int, str]
) -> None:
    guard = guarded(tmp_path, beat(0, phase="starting", longest_seconds={}))
    states[7] = "T"
    hang = guard.look({0: 100, 1: 7}, NoHosts())
    assert hang is None, "a rank that has just been seen is no silence"
    assert guard._watch._came_on is not None
    guard._watch._came_on -= 1000
    hang = guard.look({0: 100, 1: 7}, NoHosts())
    assert hang is not None
    assert [suspect.beat.pid for suspect in hang.suspects] == [7]


def test_hosts_are_asked_and_believed(tmp_path: Path) -> None:
    guard = guarded(tmp_path, beat(0), beat(1))
    hosts = NoHosts({1: RankState(101, "T", "ada")})
    hang = guard.look({}, hosts)
    assert hang is not None
    assert [suspect.beat.rank for suspect in hang.suspects] == [1]
    assert hosts.asked == [LOOK]
    hang_guard.STACKS_SECONDS, before = 0.0, hang_guard.STACKS_SECONDS
    guard.write_stacks({}, hosts)
    hang_guard.STACKS_SECONDS = before
    assert hosts.asked == [LOOK, STACKS]


def test_beats_of_other_launches_count_for_nothing(tmp_path: Path) -> None:
    (tmp_path / HEARTBEATS).mkdir()
    beat_file(tmp_path, 0).write_text("an earlier start's")
    guard = guarded(tmp_path, replace(beat(0), launch="other"), replace(beat(1), launch="id.1"))
    assert list(guard._beats({}, {})) == [1]
    assert guard.look({}, NoHosts()) is None, "one of two has not shown itself"


def test_who_cannot_answer_is_not_asked_for_stacks() -> None:
    import subprocess

    with subprocess.Popen(["sleep", "60"]) as process:
        assert not ask_for_stacks(process.pid), "it would die of it"
        process.send_signal(signal.SIGSTOP)
        time.sleep(0.05)
        assert not ask_for_stacks(process.pid)
        process.kill()
    assert not ask_for_stacks(process.pid)
