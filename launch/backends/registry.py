"""Which launchers there are."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from vdsgen.launch.backends import deepspeed, openmpi, slurm, ssh, torchrun
from vdsgen.launch.commands import Command, Job, Machine

BACKENDS: Mapping[str, Callable[[Job, Machine, str], tuple[Command, ...]]] = {
    "deepspeed": deepspeed.commands,
    "torchrun": torchrun.commands,
    "ssh": ssh.commands,
    "openmpi": openmpi.commands,
    "slurm": slurm.commands,
}
"""Name -> from a job, this machine and the launch's id to commands."""

SCHEDULERS = frozenset({"slurm"})
"""Those whose command only hands the job over; with all others this process stays until the end."""
