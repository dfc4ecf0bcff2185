"""Plain ssh: torchrun on every host, each tied to this process by the connection's standard input."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence

from vdsgen.errors import VdsgenError
from vdsgen.launch.backends.environment import rank_environment
from vdsgen.launch.backends.port import master_port
from vdsgen.launch.backends.trainer import torchrun_arguments
from vdsgen.launch.commands import Command, Job, Machine
from vdsgen.spec.secrets import is_secret

HOLD_MODULE = "vdsgen.launch.hold"
"""Runs a host's ranks there, and ends them when the connection is gone."""

OPTIONS = (
    "-T", "-a", "-x",
    "-o", "BatchMode=yes",
    "-o", "ConnectTimeout=20",
    "-o", "ServerAliveInterval=5",
    "-o", "ServerAliveCountMax=4",
)  # fmt: skip
"""No terminal, no forwarded agent or display, no questions; a host that is silent for 20 seconds is gone.
Host keys are checked as ssh's own configuration says: an unknown one is refused, as nobody can be asked."""

PASSED_ON = ("GLOO_", "NCCL_", "PYTHON", "TORCH_", "UCX_")
"""Beginnings of variables that hosts get too. Whatever is passed on can be read in their process lists: what
looks like a secret stays here."""


def commands(job: Job, machine: Machine, launch_id: str) -> tuple[Command, ...]:
    """One a host; a host that is this machine needs no ssh. Raises VdsgenError where no hosts are named."""
    if not job.hosts:
        raise VdsgenError(
            "--launcher ssh needs the names of the hosts, and the lab file names none",
            remedy="add `hosts:` (names that ssh reaches, one a node) to the pool and generate again",
        )
    return tuple(_on_host(job, machine, f"{launch_id}.{node}", node) for node in range(job.nodes))


def _on_host(job: Job, machine: Machine, launch_id: str, node: int) -> Command:
    """Each host's processes carry an id of their own: who ends those of one ends no others."""
    host, ranks = job.hosts[node], job.ranks_of_nodes[node]
    address = job.hosts[0].rpartition("@")[2]
    port = master_port(machine)
    held = [str(machine.python), "-m", HOLD_MODULE, "--ranks", str(ranks), "--"]
    argv = [*held, str(machine.python), *torchrun_arguments(job, node, address, port)]
    environment = rank_environment(job, machine, launch_id)
    if job.devices and not job.on_cpu:
        environment["CUDA_VISIBLE_DEVICES"] = ",".join(map(str, job.devices[node]))
    if host in machine.host_names:
        return Command(tuple(argv), environment, local_ranks=0, tied=True, host=host)
    return Command(over_ssh(host, machine, environment, argv), {}, local_ranks=0, tied=True, host=host)


def over_ssh(
    host: str,
    machine: Machine,
    environment: Mapping[str, str | None],
    argv: Sequence[str],
    options: Sequence[str] = (),
) -> tuple[str, ...]:
    """`argv` on `host`, in this directory, with these variables and those that travel along. `options` of ssh
    stand above the usual ones."""
    # A host has its own PATH; `hold` puts the interpreter's folder before it.
    remote = {key: value for key, value in environment.items() if key != "PATH"}
    passed = {
        key: value
        for key, value in machine.environment.items()
        if key.startswith(PASSED_ON) and not is_secret(key, value)
    }
    unset = [word for key, value in remote.items() if value is None for word in ("-u", key)]
    assign = [f"{key}={value}" for key, value in {**passed, **remote}.items() if value is not None]
    words = ["env", "-C", str(machine.working_directory), *unset, *assign, *argv]
    # ssh joins its words with spaces for the host's shell: one word, quoted for that shell, stays what it is.
    # Of an option that is given twice ssh takes the first.
    return ("ssh", *options, *OPTIONS, "--", host, shlex.join(words))
