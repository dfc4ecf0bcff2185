"""Ranks on hosts that a real sshd stands for: they end with each other, the launcher and the connection."""

from __future__ import annotations

import io
import json
import os
import shlex
import signal
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.forks.start import free_port
from tests.launch.backends.sshd import HOSTS, missing_tools, running_sshd
from tests.launch.test_commands import job, machine
from tests.launch.test_run import display_on
from tests.model.training import launch_command, render_tiny, train, write_clips
from vdsgen.launch import run as launching
from vdsgen.launch.backends import ssh
from vdsgen.launch.commands import LAUNCH_ID, Command, Job
from vdsgen.launch.run import Outcome, run
from vdsgen.launch.watch import processes_of

SKIP = missing_tools()
pytestmark = pytest.mark.skipif(SKIP is not None and "VDSGEN_REQUIRE_ALL" not in os.environ, reason=str(SKIP))
RANK = """
import os, signal, subprocess, sys, time
ranks = [subprocess.Popen([sys.executable, "-uc", sys.argv[1]], env=os.environ | {"RANK": sys.argv[2]})]
while (code := ranks[0].poll()) is None:
    time.sleep(1)
sys.exit(1 if code else 0)
"""
"""In torchrun's place: starts a rank, and asks once a second whether it has ended."""
SLEEP = "import time; time.sleep(60)"


@pytest.fixture(scope="module")
def reachable(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    with running_sshd(tmp_path_factory.mktemp("ssh") / "d") as folder:
        yield folder


@pytest.fixture
def on_path(reachable: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", f"{reachable}:{os.environ['PATH']}")
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[3]))


def small_ranks(tmp_path: Path, launch_id: str, *codes: str) -> tuple[Job, tuple[Command, ...]]:
    """The backend's own commands, with small programs in place of torchrun."""
    asked = job(hosts=HOSTS, nodes=2, world_size=2, output=tmp_path / "run dir")
    here = machine(
        python=Path(sys.executable),
        working_directory=tmp_path,
        environment={"PYTHONPATH": os.environ["PYTHONPATH"]},
    )
    made = []
    for rank, (command, code) in enumerate(zip(ssh.commands(asked, here, launch_id), codes, strict=True)):
        words = shlex.split(command.argv[-1])
        after = words.index("--") + 1
        words[after:] = [sys.executable, "-c", RANK, code, str(rank)]
        made.append(Command((*command.argv[:-1], shlex.join(words)), {}, 0, tied=True))
    return asked, tuple(made)


def run_on_hosts(tmp_path: Path, *codes: str) -> tuple[Outcome, str, float]:
    launch_id = uuid.uuid4().hex
    asked, made = small_ranks(tmp_path, launch_id, *codes)
    stream, began = io.StringIO(), time.monotonic()
    outcome = run(made, asked, launch_id, display_on(stream, tmp_path))
    seconds = time.monotonic() - began
    gone_within(launch_id, 1.0)
    return outcome, stream.getvalue(), seconds


def gone_within(launch_id: str, seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while left := processes_of(f"{launch_id}.0") | processes_of(f"{launch_id}.1"):
        assert time.monotonic() < deadline, left
        time.sleep(0.1)


@pytest.mark.usefixtures("on_path")
def test_success_is_all_hosts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # No rank runs here, which is not to be taken for ranks that have all ended.
    monkeypatch.setattr(launching, "LEFT_SECONDS", 0.1)
    outcome, shown, _ = run_on_hosts(tmp_path, "import time; time.sleep(1)", "import time; time.sleep(1)")
    assert (outcome.exit_code, shown) == (0, "")


@pytest.mark.usefixtures("on_path")
def test_a_killed_rank_is_named_and_ends_the_other_host(tmp_path: Path) -> None:
    dies = "import os, time; time.sleep(1); os.kill(os.getpid(), 9)"
    outcome, shown, seconds = run_on_hosts(tmp_path, SLEEP, dies)
    assert outcome.exit_code == 137
    assert f" on {os.uname().nodename}) was killed by SIGKILL; the job was ended." in shown
    assert shown.startswith("error: rank 1 (process ")
    assert seconds < 20


@pytest.mark.usefixtures("on_path")
def test_stopping_ends_every_host(tmp_path: Path) -> None:
    threading.Timer(2, os.kill, (os.getpid(), signal.SIGTERM)).start()
    outcome, shown, seconds = run_on_hosts(tmp_path, SLEEP, SLEEP)
    assert outcome.exit_code == 143
    assert "Stopped by SIGTERM" in shown
    assert seconds < 20


LAUNCHER = "import subprocess, sys; subprocess.Popen(sys.argv[1:], stdin=subprocess.PIPE).wait()"
"""Holds the client's standard input, as the launcher does."""


@pytest.mark.usefixtures("on_path")
@pytest.mark.parametrize("launcher", [(), (sys.executable, "-c", LAUNCHER)], ids=["cut", "launcher killed"])
def test_hosts_end_with_the_connection_and_with_the_launcher(
    tmp_path: Path, launcher: tuple[str, ...]
) -> None:
    launch_id = uuid.uuid4().hex
    _, (first, _) = small_ranks(tmp_path, launch_id, SLEEP, SLEEP)
    with subprocess.Popen([*launcher, *first.argv], stdin=subprocess.PIPE) as client:
        while not any("RANK" in environment for environment in processes_of(f"{launch_id}.0").values()):
            assert client.poll() is None
            time.sleep(0.1)
        client.kill()
        gone_within(launch_id, 10)


def test_an_unknown_host_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[3]))
    with running_sshd(tmp_path / "d", known=False) as folder:
        monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
        outcome, shown, _ = run_on_hosts(tmp_path, SLEEP, SLEEP)
    assert outcome.exit_code == 1
    assert "Host key verification failed." in shown


@pytest.mark.slow
def test_a_training_on_two_hosts_is_the_same_and_ends_with_a_killed_rank(
    tmp_path: Path, reachable: Path
) -> None:
    clips = write_clips(tmp_path / "clips")
    plan = render_tiny(tmp_path / "plan", clips, pipeline=2, data=1, training={"steps": 100_000})
    (plan / "hostfile").write_text("".join(f"{host} slots=1\n" for host in HOSTS))
    environment = {
        **os.environ, "PATH": f"{reachable}:{os.environ['PATH']}",
        "OMP_NUM_THREADS": "1", "DS_ACCELERATOR": "cpu",
        "PYTHONPATH": str(Path(__file__).parents[3]), "MASTER_PORT": str(free_port()),
    }  # fmt: skip
    run_directory = tmp_path / "run"
    with subprocess.Popen(
        launch_command(plan, run_directory, "--launcher", "ssh", "--measure"),
        env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    ) as launcher:  # fmt: skip
        deadline = time.monotonic() + 200
        while len(losses(run_directory)) < 3:
            assert launcher.poll() is None and time.monotonic() < deadline, launcher.communicate(timeout=30)
            time.sleep(0.3)
        victim = next(pid for pid, rank in ranks_of(run_directory).items() if rank == "1")
        os.kill(victim, signal.SIGKILL)
        shown = launcher.communicate(timeout=60)[0]
    assert launcher.returncode == 137, shown
    assert f"error: rank 1 (process {victim} on " in shown
    assert not ranks_of(run_directory)
    (plan / "hostfile").write_text("")
    assert train(plan, tmp_path / "other", steps=3).code == 0
    assert losses(run_directory)[:3] == losses(tmp_path / "other")


def losses(run_directory: Path) -> list[float]:
    path = run_directory / "metrics.jsonl"
    lines = path.read_text().split("\n")[:-1] if path.exists() else []
    return [json.loads(line)["loss"] for line in lines]


def ranks_of(run_directory: Path) -> dict[int, str]:
    """Process -> rank of the trainers that write into `run_directory`."""
    found = {}
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            words = (entry / "cmdline").read_bytes().split(b"\0")
            environment = (entry / "environ").read_bytes().split(b"\0")
        except OSError:
            continue
        if b"vdsgen.model.train" in words and str(run_directory).encode() in words:
            rank = next((pair[5:].decode() for pair in environment if pair.startswith(b"RANK=")), "")
            launched = any(pair.startswith(LAUNCH_ID.encode()) for pair in environment)
            if launched:
                found[int(entry.name)] = rank
    return found
