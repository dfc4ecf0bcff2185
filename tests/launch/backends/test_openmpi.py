"""What mpirun is told, word by word."""

from __future__ import annotations

import shlex

import pytest

from tests.launch.test_commands import job, machine
from vdsgen.errors import VdsgenError
from vdsgen.launch.backends.openmpi import commands

TWO = {"hosts": ("n1", "user@n2"), "nodes": 2}


def test_deepspeeds_runner_starts_every_rank_through_mpirun() -> None:
    (command,) = commands(job(**TWO), machine(), "id")
    assert command.argv == (
        "/opt/venv/bin/python", "-m", "deepspeed.launcher.runner",
        "--hostfile", "/lab/rendered/hostfile", "--force_multi", "--launcher", "openmpi",
        "--launcher_args", command.argv[9], "--master_addr", "n1",
        "--module", "vdsgen.launch.rank", "--openmpi", "n1:29500", "/lab/runs/1/logs",
        "--plan-dir", "/lab/rendered", "--output", "/lab/runs/1",
    )  # fmt: skip
    told = shlex.split(command.argv[9])
    assert told[:3] == ["--mca", "plm_rsh_args", "-oBatchMode=yes"]
    assert told[3::2] == ["-x"] * (len(told) // 2 - 1)
    assert "DS_ACCELERATOR=cpu" in told
    assert (command.local_ranks, command.tied) == (0, False)


def test_secrets_stay_here() -> None:
    (command,) = commands(job(**TWO), machine(environment={"NCCL_API_KEY": "x" * 40}), "id")
    assert command.environment["NCCL_API_KEY"] is None


def test_the_port_can_be_chosen() -> None:
    (command,) = commands(job(**TWO), machine(environment={"MASTER_PORT": "4711"}), "id")
    assert "n1:4711" in command.argv


def test_what_the_runner_cannot_pass_on_is_refused() -> None:
    with pytest.raises(VdsgenError, match="lab file names none"):
        commands(job(hosts=(), nodes=2), machine(), "id")
    with pytest.raises(VdsgenError, match="cannot tell mpirun which"):
        commands(job(**TWO, world_size=2, on_cpu=False, devices=((1,), (0,))), machine(), "id")
