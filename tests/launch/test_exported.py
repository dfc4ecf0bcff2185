"""What DeepSpeed's runner would send to hosts, held against the runner itself."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.launch.test_commands import job, machine
from vdsgen.errors import VdsgenError
from vdsgen.launch.backends.deepspeed import training_command
from vdsgen.launch.exported import SENT, check_environment_files, withheld

SECRETS = {
    "MLFLOW_TRACKING_TOKEN": "s3cret",
    "NCCL_API_KEY": "s3cret",
    "MLFLOW_TRACKING_URI": "https://u:s3cret@h/",
}


def on_hosts(**environment: str) -> Any:
    asked = job(hosts=("n1", "n2"), nodes=2, on_cpu=False)
    return training_command(asked, machine(environment={"PATH": "/usr/bin", **environment}), "id")


def test_secrets_are_kept_from_the_runner_and_the_rest_is_not() -> None:
    command = on_hosts(**SECRETS, NCCL_DEBUG="INFO", WANDB_API_KEY="s3cret")
    assert {name for name, value in command.environment.items() if value is None} == set(SECRETS)
    assert "s3cret" not in command.shell()


@pytest.mark.parametrize("value", ["$(touch hacked)", "`id`", 'a"; id; "', "a\\", "a\nb", "$HOME"])
def test_values_that_a_hosts_shell_would_obey_are_refused(value: str) -> None:
    with pytest.raises(VdsgenError, match="UCX_TLS has characters that a remote shell would obey"):
        on_hosts(UCX_TLS=value)
    training_command(job(), machine(environment={"UCX_TLS": value}), "id")  # on one host nobody sends it


def test_these_are_the_variables_that_the_runner_sends() -> None:
    runner = pytest.importorskip("deepspeed.launcher.runner")
    cuda = pytest.importorskip("deepspeed.accelerator.cuda_accelerator")
    assert set(SENT) == {*runner.EXPORT_ENVS, *cuda.CUDA_Accelerator.export_envs(None)}


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("HF_TOKEN=s3cret", "1: HF_TOKEN holds a secret"),
        ("NCCL_X=$(id)", "would obey"),
        ("no equals sign", "is no NAME=VALUE"),
    ],
)
def test_the_runners_file_of_variables_is_checked(tmp_path: Path, line: str, words: str) -> None:
    (tmp_path / ".deepspeed_env").write_text("NCCL_IB_DISABLE=1\n")
    check_environment_files({}, (tmp_path, tmp_path / "nowhere"))
    (tmp_path / "mine").write_text(line + "\n")
    with pytest.raises(VdsgenError, match=words) as caught:
        check_environment_files({"DS_ENV_FILE": "mine"}, (tmp_path,))
    assert "s3cret" not in str(caught.value)


def test_names_that_no_shell_takes_are_withheld() -> None:
    assert withheld({"NCCL_A B": "1", "NCCL_OK": "a b", "HOME": "$x"}) == {"NCCL_A B": None}


@pytest.mark.skipif(shutil.which("pdsh") is None, reason="there is no pdsh here")
def test_pdsh_asks_nobody_about_host_keys_and_says_nothing_against_them(tmp_path: Path) -> None:
    """With a stand-in for ssh that prints what it was called with."""
    (tmp_path / "ssh").write_text("#!/bin/sh\nprintf '<%s>' \"$@\"\n")
    (tmp_path / "ssh").chmod(0o755)
    environment = on_hosts(PDSH_SSH_ARGS_APPEND="-oPort=2222").environment
    result = subprocess.run(
        ["pdsh", "-S", "-w", "n1", "true"], capture_output=True, text=True, check=True,
        env={"PATH": f"{tmp_path}:{os.environ['PATH']}", "PDSH_RCMD_TYPE": "ssh",
             "PDSH_SSH_ARGS_APPEND": environment["PDSH_SSH_ARGS_APPEND"]},
    )  # fmt: skip
    assert "<-oBatchMode=yes>" in result.stdout
    assert "<-oPort=2222>" in result.stdout
    assert "StrictHostKeyChecking" not in result.stdout
