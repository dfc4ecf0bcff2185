"""DeepSpeed's own runner through Open MPI's `mpirun`, for clusters where that is how jobs are started."""

from __future__ import annotations

import shlex

from vdsgen.errors import VdsgenError
from vdsgen.launch.backends.environment import rank_environment
from vdsgen.launch.backends.port import master_port
from vdsgen.launch.backends.trainer import RANK_MODULE, trainer_arguments
from vdsgen.launch.commands import Command, Job, Machine
from vdsgen.launch.exported import withheld

TOLD = ("DS_ACCELERATOR", "OMP_NUM_THREADS", "PYTHONFAULTHANDLER", "CUDA_DEVICE_ORDER")
"""What ranks need of the environment that a launch makes: mpirun passes on what it is told to."""

BATCH = ("--mca", "plm_rsh_args", "-oBatchMode=yes")
"""Of the ssh that mpirun starts: nobody is asked, and an unknown host key is refused."""


def commands(job: Job, machine: Machine, launch_id: str) -> tuple[Command, ...]:
    """mpirun reaches the hosts by ssh itself and ends all ranks when one fails; no MPI is used for training.

    Raises VdsgenError where no hosts are named, or the plan names single GPUs, which this runner cannot pass
    on (multinode_runner.py:154).
    """
    if not job.hosts:
        raise VdsgenError(
            "--launcher openmpi needs the names of the hosts, and the lab file names none",
            remedy="add `hosts:` (names that ssh reaches, one a node) to the pool and generate again",
        )
    if job.devices and not job.on_cpu:
        raise VdsgenError(
            "the plan uses some GPUs of a host, and DeepSpeed's runner cannot tell mpirun which",
            remedy="--launcher ssh can",
        )
    environment = rank_environment(job, machine, launch_id)
    environment |= withheld(machine.environment)
    told = [f"{key}={environment[key]}" for key in TOLD if environment.get(key) is not None]
    address, port = job.hosts[0].rpartition("@")[2], master_port(machine)
    argv = [
        str(machine.python), "-m", "deepspeed.launcher.runner",
        "--hostfile", str(job.directory / "hostfile"),
        "--force_multi",
        "--launcher", "openmpi",
        "--launcher_args", shlex.join([*BATCH, *(word for pair in told for word in ("-x", pair))]),
        "--master_addr", address,
        "--module", RANK_MODULE, "--openmpi", f"{address}:{port}",
        str(job.output / "logs"),
        *trainer_arguments(job),
    ]  # fmt: skip
    return (Command(tuple(argv), environment, local_ranks=0),)
