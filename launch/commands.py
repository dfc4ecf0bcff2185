"""From a rendered directory to the command that trains it. Pure: nothing is read, nothing is started."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from vdsgen.errors import VdsgenError

TRAINER = "vdsgen.model.train"
"""The module every rank runs; named, never imported, by launching."""

LAUNCH_ID = "VDSGEN_LAUNCH_ID"
"""Environment variable that marks every process of one launch on this machine."""

PLAIN_WORD = re.compile(r"[\w@%+=:,./-]+", re.ASCII)
"""What passes a remote shell unchanged."""

DEFAULT_PORT = 29500
"""DeepSpeed's own (deepspeed/constants.py, TORCH_DISTRIBUTED_DEFAULT_PORT)."""


@dataclass(frozen=True, slots=True)
class Job:
    """What is to run. Paths are absolute."""

    directory: Path
    """The rendered directory."""
    output: Path
    """The run directory."""
    world_size: int
    hosts: tuple[str, ...]
    """The hostfile's; empty where the lab names none."""
    nodes: int
    on_cpu: bool
    """The ranks share a processor instead of having a GPU each."""
    steps: int | None
    resume: bool
    devices: tuple[tuple[int, ...], ...] = ()
    """Of each node those that the plan uses, rising; empty where each node's first ones are."""
    measure: bool = False
    """Only metrics and a summary are wanted: no checkpoint, no sample."""
    profile_steps: str | None = None
    """Steps that a trace is wanted of, `FIRST:LAST`."""


@dataclass(frozen=True, slots=True)
class Machine:
    """Where the command is typed."""

    python: Path
    working_directory: Path
    host_names: frozenset[str]
    """Names by which this machine knows itself."""
    cores: int
    free_port: int
    environment: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Command:
    """A command as an argument list, and what it changes in the environment."""

    argv: tuple[str, ...]
    environment: Mapping[str, str | None]
    """Variables to set; None: to remove."""
    local_ranks: int
    """Ranks that start on this machine; 0 when all are remote."""

    def shell(self) -> str:
        """The same for a shell, quoted: what `--dry-run` prints."""
        unset = [part for key, value in self.environment.items() if value is None for part in ("-u", key)]
        assign = [f"{key}={value}" for key, value in self.environment.items() if value is not None]
        return shlex.join(["env", *unset, *assign, *self.argv])


def training_command(job: Job, machine: Machine, launch_id: str) -> Command:
    """The deepspeed runner's command line for `job`.

    The runner is called as a module of this interpreter, so that no PATH decides which DeepSpeed runs.
    One node runs here without ssh; several, or one that is another machine, go through pdsh.
    Raises VdsgenError where the devices do not suffice, or a path would not survive a remote shell.
    """
    remote = is_remote(job, machine)
    where = _remote_arguments(job, machine) if remote else _local_arguments(job, machine)
    trainer = ["--plan-dir", str(job.directory), "--output", str(job.output)]
    if job.steps is not None:
        trainer += ["--steps", str(job.steps)]
    if job.resume:
        trainer.append("--resume")
    if job.measure:
        trainer.append("--measure")
    if job.profile_steps is not None:
        trainer += ["--profile-steps", job.profile_steps]
    argv = [
        str(machine.python),
        "-m",
        "deepspeed.launcher.runner",
        *where,
        "--enable_each_rank_log",
        str(job.output / "logs"),
        "--module",
        TRAINER,
        *trainer,
    ]
    return Command(
        argv=tuple(argv),
        environment=_environment(job, machine, launch_id),
        local_ranks=0 if remote else job.world_size,
    )


def is_remote(job: Job, machine: Machine) -> bool:
    """Whether the job needs ssh. Raises VdsgenError for several nodes without names."""
    if job.nodes > 1 and not job.hosts:
        raise VdsgenError(
            f"the plan is for {job.nodes} nodes, and the lab file names no hosts",
            remedy="add `hosts:` (names that ssh reaches, one a node) to the pool and generate again",
        )
    return job.nodes > 1 or (bool(job.hosts) and job.hosts[0] not in machine.host_names)


def _local_arguments(job: Job, machine: Machine) -> list[str]:
    """No hostfile (an empty name keeps the runner from its default, /job/hostfile; runner.py:54,212).

    The runner ignores CUDA_VISIBLE_DEVICES when told a number of devices (runner.py:449-460), so on GPUs the
    devices it names are passed on as `--include`.
    """
    visible = machine.environment.get("CUDA_VISIBLE_DEVICES", "")
    arguments = ["--hostfile", "", "--master_port", str(machine.free_port)]
    if job.on_cpu or not (visible or job.devices):
        return [*arguments, "--num_gpus", str(job.world_size)]
    devices = [device.strip() for device in visible.split(",") if visible]
    if not all(device.isdecimal() for device in devices):
        raise VdsgenError(
            f"CUDA_VISIBLE_DEVICES is {visible!r}: DeepSpeed's runner understands device numbers only",
            remedy="name the devices by number, such as CUDA_VISIBLE_DEVICES=0,1",
        )
    if job.devices:
        planned = [str(device) for device in job.devices[0]]
        hidden = [device for device in planned if devices and device not in devices]
        if hidden:
            raise VdsgenError(
                f"the plan uses GPU {' and '.join(hidden)}, CUDA_VISIBLE_DEVICES names {visible}",
                remedy="unset it, or correct free_gpus in the lab file and generate again",
            )
        return [*arguments, "--include", f"localhost:{','.join(planned)}"]
    if len(devices) < job.world_size:
        raise VdsgenError(
            f"the plan needs {job.world_size} GPUs, CUDA_VISIBLE_DEVICES names {len(devices)} ({visible})",
            remedy="name more devices, or plan for a pool of that many GPUs",
        )
    return [*arguments, "--include", f"localhost:{','.join(devices[: job.world_size])}"]


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
                remedy="on several hosts use paths of letters, digits and _ - . / @ % + = : , only",
            )
    hostfile = str(job.directory / "hostfile")
    arguments = ["--hostfile", hostfile, "--force_multi", "--master_port", str(DEFAULT_PORT)]
    if job.devices and not job.on_cpu:
        chosen = zip(job.hosts, job.devices, strict=True)
        arguments += ["--include", "@".join(f"{host}:{','.join(map(str, used))}" for host, used in chosen)]
    return arguments


def _environment(job: Job, machine: Machine, launch_id: str) -> dict[str, str | None]:
    """PATH begins with the interpreter's folder, where `ninja` lies; quiet logs; threads share the cores."""
    present = machine.environment
    path = [str(machine.python.parent), *filter(None, present.get("PATH", "").split(":"))]
    environment: dict[str, str | None] = {
        LAUNCH_ID: launch_id,
        "PATH": ":".join(dict.fromkeys(path)),
        "TORCH_CPP_LOG_LEVEL": present.get("TORCH_CPP_LOG_LEVEL", "ERROR"),
        "PYTHONFAULTHANDLER": "1",
    }
    if job.devices:
        environment["CUDA_DEVICE_ORDER"] = "PCI_BUS_ID"  # as nvidia-smi counts; CUDA puts the fastest first
    if job.on_cpu:
        environment["DS_ACCELERATOR"] = "cpu"
        # The runner would take it for a list of NUMA nodes (runner.py:449-460).
        environment["CUDA_VISIBLE_DEVICES"] = None
        threads = max(1, machine.cores // job.world_size)
        environment["OMP_NUM_THREADS"] = present.get("OMP_NUM_THREADS", str(threads))
    return environment
