"""Hosts with a network each: DeepSpeed's runner over pdsh and mpirun, and a host that is cut off."""

from __future__ import annotations

import io
import json
import os
import shlex
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.launch.backends.namespaces import Network, missing, network
from tests.launch.backends.test_hosts import RANK, SLEEP, gone_within
from tests.launch.test_commands import job, machine
from tests.launch.test_run import display_on
from tests.model.training import launch_command, render_tiny, train, write_clips
from vdsgen.launch.backends import ssh
from vdsgen.launch.commands import Command
from vdsgen.launch.run import run
from vdsgen.launch.watch import processes_of

SKIP = missing()
pytestmark = pytest.mark.skipif(SKIP is not None and "VDSGEN_REQUIRE_ALL" not in os.environ, reason=str(SKIP))
ROOT = Path(__file__).parents[3]


@pytest.fixture(scope="module")
def three(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Network]:
    with network(tmp_path_factory.mktemp("hosts") / "network", 3) as made:
        yield made


@pytest.mark.slow
@pytest.mark.parametrize(("launcher", "count"), [("deepspeed", 3), ("openmpi", 2)])
def test_deepspeeds_runner_trains_on_several_hosts(
    three: Network, tmp_path: Path, launcher: str, count: int
) -> None:
    plan = render_tiny(tmp_path / "plan", write_clips(tmp_path / "clips"), pipeline=count, data=1)
    hosts = three.hosts[:count]
    (plan / "hostfile").write_text("".join(f"{host} slots=1\n" for host in hosts))
    command = launch_command(plan, tmp_path / "run", "--launcher", launcher, "--steps", "3", "--measure")
    environment = os.environ | {
        "PATH": f"{three.folder}:{os.environ['PATH']}", "PYTHONPATH": str(ROOT), "DS_ACCELERATOR": "cpu",
        "OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1",
    }  # fmt: skip
    logins = {host: three.logins(host) for host in hosts}
    ended = subprocess.run(three.on("desk", *command), env=environment, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    (plan / "hostfile").write_text("")
    assert train(plan, tmp_path / "here", steps=3).code == 0
    assert losses(tmp_path / "run") == losses(tmp_path / "here")
    assert all(three.logins(host) > before for host, before in logins.items())


def losses(folder: Path) -> list[float]:
    return [json.loads(line)["loss"] for line in (folder / "metrics.jsonl").read_text().splitlines()]


def quick_to_give_up(command: Command, rank: int, silence_seconds: int) -> Command:
    """The backend's own command with a small program in torchrun's place, and seconds for minutes."""
    words = shlex.split(command.argv[-1])
    words.insert(words.index("--"), f"--silence={silence_seconds}")
    words[words.index("--") + 1 :] = [sys.executable, "-c", RANK, SLEEP, str(rank)]
    patient = [word.replace("Interval=5", "Interval=1") for word in command.argv[:-1]]
    return Command((*patient, shlex.join(words)), {}, 0, tied=True, host=command.host)


def test_a_host_that_is_cut_off_ends_as_the_others_do(
    three: Network, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The launcher is this process, outside: its ssh enters the desk.
    client = tmp_path / "bin" / "ssh"
    client.parent.mkdir()
    client.write_text(f'#!/bin/sh\nexec {shlex.join(three.on("desk", f"{three.folder}/ssh"))} "$@"\n')
    client.chmod(0o755)
    monkeypatch.setenv("PATH", f"{client.parent}:{os.environ['PATH']}")
    launch_id = uuid.uuid4().hex
    asked = job(hosts=three.hosts[1:], nodes=2, world_size=2, output=tmp_path / "run")
    here = machine(
        python=Path(sys.executable), working_directory=tmp_path, environment={"PYTHONPATH": str(ROOT)}
    )
    made = [
        quick_to_give_up(command, rank, silence_seconds=5)
        for rank, command in enumerate(ssh.commands(asked, here, launch_id))
    ]
    stream = io.StringIO()
    watching = display_on(stream, tmp_path)
    cut_at: list[float] = []
    refresh = watching.refresh

    def cut_when_all_run() -> None:
        refresh()
        started = [f"{launch_id}.{node}" for node in (0, 1)]
        if not cut_at and all(
            any("RANK" in environment for environment in processes_of(each).values()) for each in started
        ):
            three.cut_off(three.hosts[2])
            cut_at.append(time.monotonic())

    monkeypatch.setattr(watching, "refresh", cut_when_all_run)
    try:
        outcome = run(made, asked, launch_id, watching)
        assert time.monotonic() - cut_at[0] < 12
        gone_within(launch_id, 15)
    finally:
        three.join_again(three.hosts[2])
    assert outcome.exit_code == 1
    assert stream.getvalue().startswith("error: no connection to host3, or none any more; the job was ended.")
