"""Handing a job to a scheduler, which runs it some time later."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from vdsgen.errors import VdsgenError
from vdsgen.launch.backends.slurm import SCRIPT
from vdsgen.launch.commands import Command, Job


def check_script(directory: Path) -> None:
    """Raises VdsgenError where the directory was not rendered for SLURM."""
    if not (directory / SCRIPT).is_file():
        raise VdsgenError(
            f"{directory} has no {SCRIPT}",
            remedy="add `launcher: slurm` to the pool in the lab file and generate again",
        )


def submit(command: Command, job: Job) -> str:
    """The scheduler's name for the job. Raises VdsgenError where it takes none."""
    # Where the scheduler writes the job's own output: it makes no folders.
    (job.output / "logs").mkdir(parents=True, exist_ok=True)
    environment = os.environ | {key: value for key, value in command.environment.items() if value is not None}
    try:
        answer = subprocess.run(  # noqa: S603 - an argument list, made by a backend
            command.argv, env=environment, capture_output=True, text=True, check=False
        )
    except FileNotFoundError as error:
        raise VdsgenError(
            f"there is no {command.argv[0]} here",
            remedy="submit where SLURM's commands are, or choose another --launcher",
        ) from error
    if answer.returncode != 0:
        raise VdsgenError(f"sbatch has not taken the job: {answer.stderr.strip()}")
    # `--parsable`: the job's number, and behind a semicolon the cluster's name, where there are several.
    return answer.stdout.strip().partition(";")[0]
