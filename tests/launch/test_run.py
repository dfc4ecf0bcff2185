"""Following a job to its end, with small programs in place of DeepSpeed's launcher and the trainer."""

from __future__ import annotations

import io
import os
import signal
import sys
import textwrap
import threading
import time
import uuid
from pathlib import Path
from typing import Any

import pytest

from tests.launch.test_commands import job
from vdsgen.launch.commands import LAUNCH_ID, Command
from vdsgen.launch.progress import Display
from vdsgen.launch.run import Outcome, run
from vdsgen.launch.watch import Death, processes_of

LAUNCHER = """
import os, subprocess, sys, time
ranks = []
for rank, code in enumerate(sys.argv[2:]):
    log = open(f"{sys.argv[1]}/20260101000000_rank{rank}.log", "w")
    ranks.append(subprocess.Popen([sys.executable, "-uc", code], env={**os.environ, "RANK": str(rank)},
                                  stdout=log, stderr=log))
while None in [rank.poll() for rank in ranks]:
    failed = [rank.returncode for rank in ranks if rank.returncode]
    if failed:
        for rank in ranks:
            rank.terminate()
        sys.exit(failed[-1])
    time.sleep(1)
sys.exit(max(rank.returncode for rank in ranks))
"""
SLEEP = "import time; time.sleep(60)"


def display_on(stream: io.StringIO, tmp_path: Path) -> Display:
    return Display(stream, tmp_path / "metrics.jsonl", 10)


def run_ranks(tmp_path: Path, *ranks: str) -> tuple[int, str, str]:
    """Exit code, what was shown, and the id that no process must have any more."""
    launch_id = uuid.uuid4().hex
    command = Command(
        argv=(sys.executable, "-c", LAUNCHER, str(tmp_path / "logs"), *map(textwrap.dedent, ranks)),
        environment={LAUNCH_ID: launch_id, "RANK": None},
        local_ranks=len(ranks),
    )
    stream = io.StringIO()
    code = run((command,), job(output=tmp_path), launch_id, display_on(stream, tmp_path)).exit_code
    assert processes_of(launch_id) == {}
    return code, stream.getvalue(), launch_id


def test_success_shows_what_the_trainer_says(tmp_path: Path) -> None:
    say = "print('noise'); print('[vdsgen] trained'); import time; time.sleep(0.5)"
    code, shown, _ = run_ranks(tmp_path, say, "import time; time.sleep(1)")
    assert (code, shown) == (0, "trained\n")
    assert "noise" in (tmp_path / "logs" / "20260101000000_rank0.log").read_text()


def test_a_killed_rank_is_named_though_others_fail_after_it(tmp_path: Path) -> None:
    dies = "import os, time; time.sleep(1); print('my last words'); os.kill(os.getpid(), 9)"
    follows = "import time, sys; time.sleep(1.3); sys.exit('lost my peer')"
    started = time.monotonic()
    code, shown, _ = run_ranks(tmp_path, follows, SLEEP, dies, follows)
    assert time.monotonic() - started < 12
    assert code == 137
    assert "error: rank 2 (process " in shown
    assert "was killed by SIGKILL; the job was ended." in shown
    assert "_rank2.log:\n    my last words" in shown
    assert "lost my peer" not in shown


def test_an_exception_is_shown_with_the_end_of_its_log(tmp_path: Path) -> None:
    code, shown, _ = run_ranks(tmp_path, SLEEP, "import time; time.sleep(1); raise RuntimeError('no luck')")
    assert code == 1
    assert "error: rank 1" in shown
    assert "exited with code 1" in shown
    assert "    RuntimeError: no luck" in shown


def test_what_the_trainer_has_explained_is_not_explained_again(tmp_path: Path) -> None:
    refuses = "import time, sys; time.sleep(0.5); print('[vdsgen] error: no clips'); sys.exit(2)"
    code, shown, _ = run_ranks(tmp_path, refuses, refuses)
    assert code == 2
    assert shown in ("error: no clips\n", "rank 1: error: no clips\n")


def test_ranks_that_ignore_the_end_are_ended(tmp_path: Path) -> None:
    deaf = """
        import signal, time
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        time.sleep(60)
    """
    started = time.monotonic()
    code, _, _ = run_ranks(tmp_path, deaf, "import time; time.sleep(1); raise SystemExit(7)")
    assert code == 7
    assert time.monotonic() - started < 12


def test_a_killed_launcher_is_no_success(tmp_path: Path) -> None:
    kills = "import os, time; time.sleep(1); os.kill(os.getppid(), 9); time.sleep(60)"
    code, shown, _ = run_ranks(tmp_path, kills, SLEEP)
    assert code == 137
    assert "no rank was seen to fail" in shown


@pytest.mark.parametrize(
    ("outcome", "code"),
    [
        ((0, None, True, None), 0),
        # DeepSpeed's runner reports success when its launcher is killed.
        ((0, None, False, None), 1),
        ((3, None, False, None), 3),
        ((256 - 9, None, False, None), 137),
        ((-15, None, False, None), 143),
        ((1, Death(0, 1, 9), False, None), 137),
        ((1, Death(0, 1, 4 << 8), False, None), 4),
        ((None, None, False, None), 1),
        ((1, Death(0, 1, 9), False, signal.SIGINT), 130),
    ],
)
def test_the_exit_code_is_the_first_failures(outcome: tuple[Any, ...], code: int) -> None:
    assert Outcome(*outcome).exit_code == code


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_to_the_command_ends_every_process(tmp_path: Path, number: signal.Signals) -> None:
    timer = threading.Timer(1.5, os.kill, (os.getpid(), number))
    inherited = signal.getsignal(number)
    if inherited is signal.SIG_IGN:  # the tests themselves may run under nohup
        signal.signal(number, signal.SIG_DFL)
    handler = signal.getsignal(number)
    timer.start()
    started = time.monotonic()
    code, shown, _ = run_ranks(
        tmp_path, SLEEP, f"import subprocess, sys; subprocess.run([sys.executable, '-c', {SLEEP!r}])"
    )
    assert code == 128 + number
    assert f"Stopped by {number.name}; no process is left." in shown
    assert time.monotonic() - started < 12
    assert signal.getsignal(number) is handler
    signal.signal(number, inherited)


def test_a_hangup_that_nohup_ignores_changes_nothing(tmp_path: Path) -> None:
    previous = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGHUP)).start()
        code, shown, _ = run_ranks(tmp_path, "import time; time.sleep(1.5); print('[vdsgen] done')")
    finally:
        signal.signal(signal.SIGHUP, previous)
    assert (code, shown) == (0, "done\n")


def test_a_command_that_cannot_start_leaves_its_words(tmp_path: Path) -> None:
    launch_id = uuid.uuid4().hex
    command = Command((sys.executable, "-c", "raise SystemExit('no such host')"), {LAUNCH_ID: launch_id}, 0)
    stream = io.StringIO()
    assert run((command,), job(output=tmp_path), launch_id, display_on(stream, tmp_path)).exit_code == 1
    assert "launcher.log:\n    no such host" in stream.getvalue()


def test_the_environment_is_changed_as_the_command_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3")
    show = "import os; print(os.environ.get('CUDA_VISIBLE_DEVICES'), os.environ['X'])"
    command = Command((sys.executable, "-c", show), {"CUDA_VISIBLE_DEVICES": None, "X": "1"}, 0)
    display = display_on(io.StringIO(), tmp_path)
    assert run((command,), job(output=tmp_path), "none", display).exit_code == 0
    assert (tmp_path / "logs" / "launcher.log").read_text() == "None 1\n"


TRAINS = """
import pathlib, time
run = pathlib.Path({run!r})
(run / "metrics.jsonl").write_text("{{}}")
while not (run / "stop-request").exists():
    time.sleep(0.05)
{then}
"""


def signalled(tmp_path: Path, *, then: str, seconds: list[float]) -> tuple[int, str]:
    """A rank that trains; this process is signalled after so many seconds; asked to stop, it does `then`."""
    for after in seconds:
        threading.Timer(after, os.kill, (os.getpid(), signal.SIGTERM)).start()
    code, shown, _ = run_ranks(tmp_path, TRAINS.format(run=str(tmp_path), then=then))
    return code, shown


def test_a_run_that_trains_saves_before_a_signal_ends_it(tmp_path: Path) -> None:
    then = "time.sleep(6); print('[vdsgen] saved', flush=True)"
    code, shown = signalled(tmp_path, then=then, seconds=[1.5])
    assert code == 128 + signal.SIGTERM
    assert "Stopping after this step, with a checkpoint (SIGTERM)" in shown
    assert "saved\n" in shown, "the rank was ended before it was through"
    assert "Stopped by SIGTERM; no process is left." in shown


def test_a_second_signal_ends_a_run_at_once(tmp_path: Path) -> None:
    started = time.monotonic()
    code, shown = signalled(tmp_path, then="time.sleep(60)", seconds=[1.5, 3.0])
    assert code == 128 + signal.SIGTERM
    assert time.monotonic() - started < 15
    assert "Stopping (SIGTERM)." in shown


def test_a_launcher_that_outstays_its_ranks_is_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vdsgen.launch.run.LEFT_SECONDS", 0.5)
    monkeypatch.setattr("vdsgen.launch.run.GRACE_SECONDS", 0.5)
    stops = "import os, signal, time; time.sleep(1); os.kill(os.getppid(), signal.SIGSTOP)"
    started = time.monotonic()
    code, _, _ = run_ranks(tmp_path, stops)
    assert code == 1
    assert time.monotonic() - started < 12


def test_ranks_that_are_all_elsewhere_have_not_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vdsgen.launch.run.LEFT_SECONDS", 0.3)
    monkeypatch.setattr("vdsgen.launch.run.GRACE_SECONDS", 0.3)
    command = Command((sys.executable, "-c", "import time; time.sleep(2)"), {}, 0)
    display = display_on(io.StringIO(), tmp_path)
    assert run((command,), job(output=tmp_path), "none", display).exit_code == 0
