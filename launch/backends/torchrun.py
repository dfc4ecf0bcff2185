"""torch's own launcher, on one node."""

from __future__ import annotations

from vdsgen.errors import VdsgenError
from vdsgen.launch.backends.environment import local_devices, rank_environment
from vdsgen.launch.backends.trainer import torchrun_arguments
from vdsgen.launch.commands import Command, Job, Machine, is_remote


def commands(job: Job, machine: Machine, launch_id: str) -> tuple[Command, ...]:
    """Raises VdsgenError for a job that is not for this machine alone, or for more GPUs than are shown."""
    if is_remote(job, machine):
        raise VdsgenError(
            f"torchrun starts the ranks of this machine, and the plan is for {', '.join(job.hosts)}",
            remedy="--launcher ssh starts torchrun on every host",
        )
    environment = rank_environment(job, machine, launch_id)
    devices = local_devices(job, machine)
    if devices is not None:
        environment["CUDA_VISIBLE_DEVICES"] = ",".join(devices)
    argv = [str(machine.python), *torchrun_arguments(job, 0, "127.0.0.1", machine.free_port)]
    return (Command(tuple(argv), environment, local_ranks=job.world_size),)
