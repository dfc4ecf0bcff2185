from __future__ import annotations

import shlex
import subprocess
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given

from tests.render.plans import PATHS
from vdsgen.errors import VdsgenError
from vdsgen.launch.backends.deepspeed import training_command
from vdsgen.launch.commands import DEFAULT_PORT, LAUNCH_ID, Job, Machine


def job(**changes: Any) -> Job:
    values: dict[str, Any] = {
        "directory": Path("/lab/rendered"),
        "output": Path("/lab/runs/1"),
        "world_size": 4,
        "hosts": ("localhost",),
        "nodes": 1,
        "on_cpu": True,
        "steps": None,
        "resume": False,
    }
    return Job(**(values | changes))


def machine(**changes: Any) -> Machine:
    values: dict[str, Any] = {
        "python": Path("/opt/venv/bin/python"),
        "working_directory": Path("/lab"),
        "host_names": frozenset({"localhost", "here"}),
        "cores": 8,
        "free_port": 23456,
        "environment": {"PATH": "/usr/bin:/bin"},
    }
    return Machine(**(values | changes))


def test_one_node_runs_here_without_a_hostfile() -> None:
    command = training_command(job(steps=20, resume=True), machine(), "id")
    assert command.argv == (
        "/opt/venv/bin/python", "-m", "deepspeed.launcher.runner",
        "--hostfile", "", "--master_port", "23456", "--num_gpus", "4",
        "--enable_each_rank_log", "/lab/runs/1/logs",
        "--module", "vdsgen.model.train",
        "--plan-dir", "/lab/rendered", "--output", "/lab/runs/1", "--steps", "20", "--resume",
    )  # fmt: skip
    assert command.local_ranks == 4


def test_processor_ranks_share_the_cores_and_see_no_gpu() -> None:
    environment = training_command(
        job(), machine(environment={"CUDA_VISIBLE_DEVICES": "3"}), "id"
    ).environment
    assert environment["OMP_NUM_THREADS"] == "2"
    assert environment["DS_ACCELERATOR"] == "cpu"
    assert environment["CUDA_VISIBLE_DEVICES"] is None


def test_more_ranks_than_cores_still_have_a_thread_each() -> None:
    assert training_command(job(), machine(cores=2), "id").environment["OMP_NUM_THREADS"] == "1"


def test_the_users_own_thread_count_is_kept() -> None:
    environment = training_command(job(), machine(environment={"OMP_NUM_THREADS": "7"}), "id").environment
    assert environment["OMP_NUM_THREADS"] == "7"


def test_ninja_of_the_interpreter_is_found_first() -> None:
    environment = training_command(job(), machine(), "id").environment
    assert environment["PATH"] == "/opt/venv/bin:/usr/bin:/bin"
    assert environment[LAUNCH_ID] == "id"


def test_visible_gpus_are_passed_on_by_number() -> None:
    command = training_command(
        job(on_cpu=False, world_size=2), machine(environment={"CUDA_VISIBLE_DEVICES": "5, 2,3"}), "id"
    )
    assert "localhost:5,2" in command.argv
    assert "--num_gpus" not in command.argv
    assert "DS_ACCELERATOR" not in command.environment


@pytest.mark.parametrize(
    ("visible", "part"), [("0,1", "needs 4 GPUs, CUDA_VISIBLE_DEVICES names 2"), ("GPU-ab12", "numbers only")]
)
def test_gpus_that_do_not_suffice_are_refused(visible: str, part: str) -> None:
    with pytest.raises(VdsgenError, match=part):
        training_command(job(on_cpu=False), machine(environment={"CUDA_VISIBLE_DEVICES": visible}), "id")


def test_several_hosts_go_through_the_hostfile() -> None:
    command = training_command(job(hosts=("n1", "n2"), nodes=2, on_cpu=False), machine(), "id")
    where = command.argv[3:8]
    assert where == (
        "--hostfile",
        "/lab/rendered/hostfile",
        "--force_multi",
        "--master_port",
        str(DEFAULT_PORT),
    )
    assert command.local_ranks == 0


def test_one_host_that_is_this_machine_needs_no_ssh() -> None:
    assert training_command(job(hosts=("here",)), machine(), "id").local_ranks == 4
    assert training_command(job(hosts=("there",)), machine(), "id").local_ranks == 0


def test_several_nodes_without_names_are_refused() -> None:
    with pytest.raises(VdsgenError, match="2 nodes, and the lab file names no hosts"):
        training_command(job(hosts=(), nodes=2), machine(), "id")


@pytest.mark.parametrize("path", ["/lab/$(touch hacked)", "/lab/a b", "/lab/`id`", "/lab/x;reboot", "/lab/'"])
@pytest.mark.parametrize("which", ["directory", "output"])
def test_paths_that_a_remote_shell_would_take_apart_are_refused(path: str, which: str) -> None:
    with pytest.raises(VdsgenError, match="remote shell"):
        training_command(job(hosts=("n1", "n2"), nodes=2, **{which: Path(path)}), machine(), "id")


@pytest.mark.parametrize("hosts", [("localhost",), ("n1", "n2")])
def test_deepspeeds_own_parser_reads_what_is_meant(hosts: tuple[str, ...]) -> None:
    runner = pytest.importorskip("deepspeed.launcher.runner")
    command = training_command(job(hosts=hosts, nodes=len(hosts), steps=3, resume=True), machine(), "id")
    parsed = runner.parse_args(list(command.argv[3:]))
    assert parsed.module
    assert parsed.user_script == "vdsgen.model.train"
    assert parsed.user_args == list(command.argv[command.argv.index("--plan-dir") :])
    assert parsed.enable_each_rank_log == "/lab/runs/1/logs"
    assert parsed.force_multi == (len(hosts) > 1)
    assert parsed.num_gpus == (-1 if len(hosts) > 1 else 4)


@given(PATHS, PATHS)
def test_awkward_paths_stay_one_argument_each(directory: str, output: str) -> None:
    command = training_command(job(directory=Path("/", directory), output=Path("/", output)), machine(), "id")
    assert command.argv[command.argv.index("--plan-dir") + 1] == str(Path("/", directory))
    assert command.argv[command.argv.index("--output") + 1] == str(Path("/", output))
    assert shlex.split(command.shell())[-len(command.argv) :] == list(command.argv)


def test_the_printed_command_means_the_same_to_a_real_shell(tmp_path: Path) -> None:
    awkward = "/x/$(touch hacked) `id` 'a' \"b\" ; ünï\n#"
    interpreter = tmp_path / "show arguments"
    interpreter.write_text("#!/bin/sh\nprintf '%s\\0' \"$@\"\n")
    interpreter.chmod(0o755)
    command = training_command(job(directory=Path(awkward)), machine(python=interpreter), "id")
    empty = tmp_path / "empty"
    empty.mkdir()
    result = subprocess.run(["bash", "-c", command.shell()], cwd=empty, capture_output=True, check=True)
    assert result.stdout.decode().split("\0")[:-1] == list(command.argv[1:])
    assert not list(empty.iterdir())
