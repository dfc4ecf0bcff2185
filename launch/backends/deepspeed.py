"""DeepSpeed's own runner: one node directly, several through pdsh."""

from __future__ import annotations

from vdsgen.errors import VdsgenError
from vdsgen.launch.backends.environment import local_devices, rank_environment
from vdsgen.launch.backends.port import master_port
from vdsgen.launch.backends.trainer import trainer_arguments
from vdsgen.launch.commands import PLAIN_WORD, TRAINER, Command, Job, Machine, is_remote
from vdsgen.launch.exported import withheld

SSH_OPTIONS = "PDSH_SSH_ARGS_APPEND"
"""Variable that pdsh adds to every ssh's options. In batch mode nobody is asked anything: an unknown host key
is refused unless ssh's own configuration says otherwise. pdsh itself says nothing of host keys (2.34)."""


def commands(job: Job, machine: Machine, launch_id: str) -> tuple[Command, ...]:
    return (training_command(job, machine, launch_id),)


def training_command(job: Job, machine: Machine, launch_id: str) -> Command:
    """The deepspeed runner's command line for `job`.

    The runner is called as a module of this interpreter, so that no PATH decides which DeepSpeed runs.
    One node runs here without ssh; several, or one that is another machine, go through pdsh.
    Raises VdsgenError where the devices do not suffice, or a path would not survive a remote shell.
    """
    remote = is_remote(job, machine)
    where = _remote_arguments(job, machine) if remote else _local_arguments(job, machine)
    argv = [
        str(machine.python),
        "-m",
        "deepspeed.launcher.runner",
        *where,
        "--enable_each_rank_log",
        str(job.output / "logs"),
        "--module",
        TRAINER,
        *trainer_arguments(job),
    ]
    environment = rank_environment(job, machine, launch_id)
    if remote:
        environment |= withheld(machine.environment)
        asked = machine.environment.get(SSH_OPTIONS, "")
        environment[SSH_OPTIONS] = f"{asked} -oBatchMode=yes".strip()
    return Command(
        argv=tuple(argv),
        environment=environment,
        local_ranks=0 if remote else job.world_size,
    )


def _local_arguments(job: Job, machine: Machine) -> list[str]:
    """No hostfile (an empty name keeps the runner from its default, /job/hostfile; runner.py:54,212).

    The runner ignores CUDA_VISIBLE_DEVICES when told a number of devices (runner.py:449-460), so on GPUs the
    devices it names are passed on as `--include`.
    """
    visible = machine.environment.get("CUDA_VISIBLE_DEVICES", "")
    arguments = ["--hostfile", "", "--master_port", str(machine.free_port)]
    if visible and not job.on_cpu and not all(d.strip().isdecimal() for d in visible.split(",")):
        raise VdsgenError(
            f"CUDA_VISIBLE_DEVICES is {visible!r}: DeepSpeed's runner understands device numbers only",
            remedy="name the devices by number, such as CUDA_VISIBLE_DEVICES=0,1; or --launcher torchrun",
        )
    devices = local_devices(job, machine)
    if devices is None:
        return [*arguments, "--num_gpus", str(job.world_size)]
    return [*arguments, "--include", f"localhost:{','.join(devices)}"]


def _remote_arguments(job: Job, machine: Machine) -> list[str]:
    """pdsh hands the words to a remote shell as one line, hardly quoted (multinode_runner.py:75-84,127)."""
    words = {
        "the rendered directory": job.directory,
        "the run directory": job.output,
        "the current directory": machine.working_directory,
        "the Python interpreter": machine.python,
    }
    for what, path in words.items():
        if not PLAIN_WORD.fullmatch(str(path)):
            raise VdsgenError(
                f"{what}, {str(path)!r}, has characters that a remote shell would take apart",
                remedy="on several hosts use paths of letters, digits and _ - . / @ + = : , only; "
                "or --launcher ssh, which quotes them",
            )
    hostfile = str(job.directory / "hostfile")
    arguments = ["--hostfile", hostfile, "--force_multi", "--master_port", str(master_port(machine))]
    if job.devices and not job.on_cpu:
        chosen = zip(job.hosts, job.devices, strict=True)
        arguments += ["--include", "@".join(f"{host}:{','.join(map(str, used))}" for host, used in chosen)]
    return arguments
