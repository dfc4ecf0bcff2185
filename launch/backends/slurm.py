"""SLURM: the rendered batch script, submitted."""

from __future__ import annotations

from vdsgen.errors import VdsgenError
from vdsgen.launch.backends.environment import rank_environment
from vdsgen.launch.backends.trainer import run_arguments
from vdsgen.launch.commands import Command, Job, Machine

SCRIPT = "train.sbatch"

FOR_THE_JOB = ("PATH", "TORCH_CPP_LOG_LEVEL", "PYTHONFAULTHANDLER")
"""What is changed in the environment, which sbatch hands to the job; the rest the script says itself."""


def commands(job: Job, machine: Machine, launch_id: str) -> tuple[Command, ...]:
    """The submission; the job itself is SLURM's. Raises VdsgenError for names that sbatch would change."""
    if "%" in str(job.output):
        raise VdsgenError(
            f"the run directory, {str(job.output)!r}, has a %, which sbatch would replace",
            remedy="choose another --output",
        )
    environment = rank_environment(job, machine, launch_id)
    argv = [
        "sbatch",
        "--parsable",
        f"--output={job.output}/logs/slurm-%j.log",
        str(job.directory / SCRIPT),
        str(job.directory),
        str(job.output),
        *run_arguments(job),
    ]
    return (Command(tuple(argv), {key: environment[key] for key in FOR_THE_JOB}, local_ranks=0),)
