"""What is sent to hosts, word by word."""

from __future__ import annotations

import shlex
import subprocess
from pathlib import Path

import pytest
from hypothesis import given, settings

from tests.launch.test_commands import job, machine
from tests.render.plans import PATHS
from vdsgen.errors import VdsgenError
from vdsgen.launch.backends.ssh import commands
from vdsgen.launch.commands import LAUNCH_ID

TWO = {"hosts": ("n1", "user@n2"), "nodes": 2}


def test_every_host_gets_its_torchrun() -> None:
    first, second = commands(job(**TWO, slots=(1, 3)), machine(), "id")
    assert second.argv[:4] == ("ssh", "-T", "-a", "-x")
    assert second.argv[-3:-1] == ("--", "user@n2")
    assert not any("StrictHostKeyChecking" in word for word in second.argv)
    words = shlex.split(second.argv[-1])
    assert words[:3] == ["env", "-C", "/lab"]
    start = words.index("/opt/venv/bin/python")
    assert words[start:] == [
        "/opt/venv/bin/python", "-m", "vdsgen.launch.hold", "--ranks", "3", "--",
        "/opt/venv/bin/python", "-m", "torch.distributed.run",
        "--nnodes", "2", "--node-rank", "1", "--nproc-per-node", "3",
        "--master-addr", "n1", "--master-port", "29500", "--monitor-interval", "1",
        "--module", "vdsgen.launch.rank", "/lab/runs/1/logs",
        "--plan-dir", "/lab/rendered", "--output", "/lab/runs/1",
    ]  # fmt: skip
    assert f"{LAUNCH_ID}=id.1" in words[:start]
    assert words[3:5] == ["-u", "CUDA_VISIBLE_DEVICES"]
    assert "--nproc-per-node 1" in first.argv[-1]
    assert (first.tied, first.local_ranks) == (True, 0)


def test_this_machine_needs_no_ssh() -> None:
    here, there = commands(job(hosts=("here", "n2"), nodes=2), machine(), "id")
    assert here.argv[:3] == ("/opt/venv/bin/python", "-m", "vdsgen.launch.hold")
    assert here.environment[LAUNCH_ID] == "id.0"
    assert there.argv[0] == "ssh"


def test_unequal_hosts_see_their_own_gpus() -> None:
    asked = job(hosts=("bee", "ada"), nodes=2, world_size=5, on_cpu=False, devices=((0, 2, 3), (1, 5)))
    bee, ada = commands(asked, machine(), "id")
    assert "CUDA_VISIBLE_DEVICES=0,2,3" in shlex.split(bee.argv[-1])
    assert "CUDA_VISIBLE_DEVICES=1,5" in shlex.split(ada.argv[-1])
    assert "--nproc-per-node 2" in ada.argv[-1]


def test_only_harmless_variables_travel() -> None:
    present = {"NCCL_DEBUG": "INFO", "PYTHONPATH": "/a b", "HF_TOKEN": "secret", "PATH": "/bin"}
    first, _ = commands(job(**TWO), machine(environment=present), "id")
    words = shlex.split(first.argv[-1])
    assert {"NCCL_DEBUG=INFO", "PYTHONPATH=/a b"} <= set(words)
    assert "secret" not in first.argv[-1]
    assert not any(word.startswith("PATH=") for word in words)


def test_the_port_can_be_chosen() -> None:
    first, _ = commands(job(**TWO), machine(environment={"MASTER_PORT": "4711"}), "id")
    assert "--master-port 4711" in first.argv[-1]
    with pytest.raises(VdsgenError, match="MASTER_PORT is 'x', no port"):
        commands(job(**TWO), machine(environment={"MASTER_PORT": "x"}), "id")


def test_hosts_must_be_named() -> None:
    with pytest.raises(VdsgenError, match="lab file names none"):
        commands(job(hosts=(), nodes=2), machine(), "id")


@settings(max_examples=25)
@given(PATHS, PATHS)
def test_a_hosts_shell_takes_no_word_apart(directory: str, output: str) -> None:
    asked = job(**TWO, directory=Path("/", directory), output=Path("/", output))
    line = commands(asked, machine(), "id")[0].argv[-1]
    shown = subprocess.run(["sh", "-c", f"printf '%s\\0' {line}"], capture_output=True, check=True)
    words = shown.stdout.decode().split("\0")[:-1]
    assert words == shlex.split(line)
    assert words[words.index("--plan-dir") + 1] == str(Path("/", directory))
    assert words[words.index("--output") + 1] == str(Path("/", output))
