"""What starts a pool's jobs, where it is not DeepSpeed's own runner."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import StringConstraints

from vdsgen.spec.base import Name, PositiveFloat, PositiveInt, SpecWithOptions

Launcher = Literal["deepspeed", "torchrun", "ssh", "slurm"]

SlurmTime = Annotated[str, StringConstraints(pattern=r"^([0-9]+-)?[0-9]+(:[0-9]{2}){0,2}$", max_length=32)]
"""As sbatch writes it: minutes, hours:minutes:seconds, days-hours:minutes, ..."""


class Slurm(SpecWithOptions):
    """What a SLURM job says beyond its plan."""

    written_where_set = frozenset(
        {"partition", "account", "qos", "constraint", "time", "notice_seconds", "memory_gib_per_node"}
    )

    partition: Name | None = None
    account: Name | None = None
    qos: Name | None = None
    constraint: Name | None = None
    """A feature that nodes must have."""
    time: SlurmTime | None = None
    """Limit of one start; when it is near, the job saves what it can and is queued again."""
    notice_seconds: PositiveInt = 120
    """How long before the limit the job is told."""
    memory_gib_per_node: PositiveFloat | None = None
    """Host memory to ask for; None: the partition's default."""
