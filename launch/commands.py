"""What is to run, where, and as which command. Pure: nothing is read, nothing is started."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from vdsgen.errors import VdsgenError
from vdsgen.spec.run import LAUNCH_ID as LAUNCH_ID

TRAINER = "vdsgen.model.train"
"""The module every rank runs; named, never imported, by launching."""

PLAIN_WORD = re.compile(r"[\w@+=:,./-]+", re.ASCII)
"""What passes pdsh and a remote shell unchanged; `%` and a letter is for pdsh to fill in."""

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
    trace_steps: str | None = None
    """Steps whose schedule is wanted as it was run, `FIRST:LAST`."""
    slots: tuple[int, ...] = ()
    """What the hostfile gives each host: its ranks where `devices` is empty."""

    @property
    def ranks_of_nodes(self) -> tuple[int, ...]:
        """In the order of the ranks."""
        if self.devices:
            return tuple(map(len, self.devices))
        return self.slots or (self.world_size // self.nodes,) * self.nodes


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
    tied: bool = False
    """Ends, with all its ranks, when its standard input does; says on standard output how ranks fail."""
    host: str | None = None
    """Where it runs, as the hostfile calls it; None: here, or on several."""

    def shell(self) -> str:
        """The same for a shell, quoted: what `--dry-run` prints."""
        unset = [part for key, value in self.environment.items() if value is None for part in ("-u", key)]
        assign = [f"{key}={value}" for key, value in self.environment.items() if value is not None]
        return shlex.join(["env", *unset, *assign, *self.argv])


def is_remote(job: Job, machine: Machine) -> bool:
    """Whether the job needs ssh. Raises VdsgenError for several nodes without names."""
    if job.nodes > 1 and not job.hosts:
        raise VdsgenError(
            f"the plan is for {job.nodes} nodes, and the lab file names no hosts",
            remedy="add `hosts:` (names that ssh reaches, one a node) to the pool and generate again",
        )
    return job.nodes > 1 or (bool(job.hosts) and job.hosts[0] not in machine.host_names)
