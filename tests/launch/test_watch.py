from __future__ import annotations

import os
import signal
import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from vdsgen.launch.commands import LAUNCH_ID
from vdsgen.launch.watch import Death, RankWatch, kill_all, processes_of

Start = Callable[[int, str], "subprocess.Popen[bytes]"]
SLEEP = "import time; print(flush=True); time.sleep(60)"


@pytest.fixture
def launch_id() -> Iterator[str]:
    name = uuid.uuid4().hex
    yield name
    kill_all(name)


@pytest.fixture
def start(launch_id: str) -> Iterator[Start]:
    started: list[subprocess.Popen[bytes]] = []

    def start_rank(rank: int, code: str) -> subprocess.Popen[bytes]:
        environment = {**os.environ, LAUNCH_ID: launch_id, "RANK": str(rank)}
        process = subprocess.Popen([sys.executable, "-c", code], env=environment, stdout=subprocess.PIPE)
        started.append(process)
        assert process.stdout is not None
        process.stdout.readline()
        return process

    yield start_rank
    for process in started:
        process.kill()
        process.wait()
        assert process.stdout is not None
        process.stdout.close()


def test_the_first_death_is_named_with_its_signal(launch_id: str, start: Start) -> None:
    ranks = [start(rank, SLEEP) for rank in range(3)]
    watch = RankWatch(launch_id, 3)
    watch.wait(0.01)
    ranks[1].kill()
    watch.wait(10)
    ranks[0].terminate()
    watch.wait(10)
    assert watch.first_failure == Death(1, ranks[1].pid, signal.SIGKILL)
    assert str(watch.first_failure) == f"rank 1 (process {ranks[1].pid}) was killed by SIGKILL"
    assert watch.first_failure.exit_code == 137
    assert [death.rank for death in watch.deaths] == [1, 0]
    assert not watch.all_ended
    watch.close()


def test_a_clean_end_is_no_failure(launch_id: str, start: Start, tmp_path: Path) -> None:
    go = "import os, time\nprint(flush=True)\nwhile not os.path.exists({!r}): time.sleep(0.01)\nos._exit({})"
    seen = tmp_path / "seen"
    ranks = [start(0, go.format(str(seen), 0)), start(1, go.format(str(seen), 3))]
    watch = RankWatch(launch_id, 2)
    while len(watch.alive) < 2:
        watch.wait(0.01)
    seen.touch()
    while not watch.all_ended:
        watch.wait(5)
    assert watch.first_failure == Death(1, ranks[1].pid, 3 << 8)
    assert watch.first_failure.exit_code == 3
    assert {death.rank: death.failed for death in watch.deaths} == {0: False, 1: True}
    watch.close()


def test_an_end_that_somebody_else_has_read_says_nothing() -> None:
    assert not Death(0, 1, None).failed
    assert Death(0, 1, None).exit_code is None


def test_a_ranks_own_children_are_no_ranks(launch_id: str, start: Start) -> None:
    child = f"import subprocess, sys; p = subprocess.Popen([sys.executable, '-c', {SLEEP!r}]); p.wait()"
    process = start(0, child)
    watch = RankWatch(launch_id, 2)
    watch.wait(0.01)
    assert len(processes_of(launch_id)) == 2
    kill_all(launch_id)
    process.wait()
    watch.wait(10)
    assert [death.pid for death in watch.deaths] == [process.pid]
    watch.close()


def test_killing_all_leaves_none_and_spares_other_launches(launch_id: str, start: Start) -> None:
    ranks = [start(rank, SLEEP) for rank in range(2)]
    assert kill_all(uuid.uuid4().hex) == []
    assert sorted(kill_all(launch_id)) == sorted(process.pid for process in ranks)
    assert [process.wait() for process in ranks] == [-signal.SIGKILL] * 2
    assert processes_of(launch_id) == {}
