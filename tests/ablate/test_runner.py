"""Rounds, one plan at a time; a failing plan, and processes that are killed at any moment."""

from __future__ import annotations

import io
import os
import random
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.ablate.results import ablation, entry, failed, ran
from vdsgen.ablate.measure import Started, Task
from vdsgen.ablate.progress import RunDisplay
from vdsgen.ablate.records import Ablation, RunEnded, RunStarted
from vdsgen.ablate.results import results_of
from vdsgen.ablate.runner import order, run_rounds, work_left
from vdsgen.ablate.state import AblationDirectory

PLANS = ("a", "b", "c")


def small() -> Ablation:
    return ablation(*(entry(name) for name in PLANS), steps=2)


class Machine:
    """Stands in for the launcher: keeps what ran, in order; `broken` plans fail."""

    def __init__(self, *broken: str) -> None:
        self.ran: list[tuple[str, int]] = []
        self.broken = broken

    def __call__(self, task: Task, display: RunDisplay, started: Started) -> RunEnded:
        assert not task.output.exists(), "a run starts in a directory of its own"
        started("no-such-launch")
        task.output.mkdir(parents=True)
        self.ran.append((task.plan, task.round))
        display.say("something")
        if task.plan in self.broken:
            return failed(task.plan, task.round)
        return ran(task.plan, task.round, 1.0, 2.0)


def go_on(
    directory: AblationDirectory, machine: Machine, rounds: int = 2, *, retry_failed: bool = False
) -> str:
    stream = io.StringIO()
    with directory.locked():
        directory.begin(small(), {})
        work = work_left(directory, small(), rounds, retry_failed=retry_failed)
        run_rounds(directory, small(), rounds, work, machine, stream)
    return stream.getvalue()


def test_rounds_go_there_and_back(tmp_path: Path) -> None:
    there, back = [(name, 1) for name in PLANS], [(name, 2) for name in reversed(PLANS)]
    assert order(PLANS, 3) == [*there, *back, *((name, 3) for name in PLANS)]
    machine = Machine()
    shown = go_on(AblationDirectory(tmp_path), machine)
    assert machine.ran == [*there, *back]
    assert shown.splitlines()[0] == "[1/6] a, round 1: 1.5 s a step, 90 MiB"


def test_what_is_finished_is_not_run_again(tmp_path: Path) -> None:
    directory = AblationDirectory(tmp_path)
    go_on(directory, Machine(), rounds=1)
    again, more = Machine(), Machine()
    assert go_on(directory, again, rounds=1) == ""
    go_on(directory, more, rounds=2)
    assert again.ran == []
    assert more.ran == [("c", 2), ("b", 2), ("a", 2)]
    results = results_of(small(), directory.journal())
    assert [one.measured.rounds for one in results if one.measured] == [2, 2, 2]
    lines = directory.results.read_text().splitlines()
    assert [results_line.model_dump_json() for results_line in results] == lines


def test_a_failing_plan_stops_neither_the_others_nor_a_second_try(tmp_path: Path) -> None:
    directory = AblationDirectory(tmp_path)
    machine = Machine("b")
    shown = go_on(directory, machine)
    assert machine.ran == [("a", 1), ("b", 1), ("c", 1), ("c", 2), ("a", 2)]
    assert "[2/5] b, round 1: failed: error: rank 0 died" in shown
    assert [one.status for one in results_of(small(), directory.journal())] == ["ok", "failed", "ok"]
    unchanged, mended = Machine(), Machine()
    go_on(directory, unchanged)
    assert unchanged.ran == []
    go_on(directory, mended, retry_failed=True)
    assert mended.ran == [("b", 1), ("b", 2)]
    assert [one.status for one in results_of(small(), directory.journal())] == ["ok", "ok", "ok"]


CHILD = """
import subprocess, sys, time
from pathlib import Path
sys.path.insert(0, {root!r})
from tests.ablate.test_runner import AblationDirectory, Machine, small, run_rounds, work_left
from vdsgen.launch.commands import LAUNCH_ID
from tests.ablate.results import ran

class Slow(Machine):
    def __call__(self, task, display, started):
        launch_id = f"{{task.plan}}-{{task.round}}-{{time.monotonic_ns()}}"
        started(launch_id)
        task.output.mkdir(parents=True)
        (task.output / "half").touch()
        # A rank that outlives its launcher unless somebody ends it.
        rank = subprocess.Popen(["sleep", "60"], env={{LAUNCH_ID: launch_id, "PATH": "/usr/bin:/bin"}})
        time.sleep(0.05)
        rank.kill()
        rank.wait()
        (task.output / "whole").touch()
        return ran(task.plan, task.round, 1.0, 2.0)

directory = AblationDirectory(Path(sys.argv[1]))
with directory.locked():
    directory.begin(small(), {{}})
    run_rounds(directory, small(), 3, work_left(directory, small(), 3), Slow(), sys.stderr)
"""


def sleepers(mark: str) -> list[int]:
    """Processes of launches whose id begins with `mark`."""
    from vdsgen.launch.commands import LAUNCH_ID
    from vdsgen.launch.watch import _environment

    pids = [int(path.name) for path in Path("/proc").iterdir() if path.name.isdecimal()]
    return [pid for pid in pids if _environment(pid).get(LAUNCH_ID, "").startswith(mark)]


@pytest.mark.slow
def test_killed_at_any_moment_it_ends_with_every_run_once(tmp_path: Path) -> None:
    directory = AblationDirectory(tmp_path / "out")
    arguments = [sys.executable, "-c", CHILD.format(root=str(Path(__file__).parents[2])), str(directory.path)]
    draw = random.Random(os.urandom(8))
    kills = 0
    while True:
        # A file: a pipe would end with the last of the ranks that hold it, which may outlive the process.
        with (tmp_path / "shown").open("w") as shown:
            process = subprocess.Popen(arguments, stderr=shown)
        try:
            # Imports take most of the first second, the nine runs half of one.
            process.wait(timeout=draw.uniform(0.3, 1.5) if kills < 6 else 60)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            process.wait()
            kills += 1
            continue
        assert process.returncode == 0, (tmp_path / "shown").read_text()
        break
    journal = directory.journal()
    ended = [(line.plan, line.round) for line in journal if isinstance(line, RunEnded)]
    started = [line for line in journal if isinstance(line, RunStarted)]
    assert sorted(ended) == sorted(order(PLANS, 3)), f"after {kills} kills"
    assert len(ended) <= len(started) <= len(ended) + kills
    assert all((directory.run(*key) / "whole").exists() for key in ended)
    assert [result.status for result in results_of(small(), journal)] == ["ok"] * 3
    assert not [pid for line in started for pid in sleepers(line.launch_id)]
