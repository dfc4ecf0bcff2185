"""What starts a pool's jobs, where it is not DeepSpeed's own runner."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, StringConstraints, model_validator

from vdsgen.spec.base import (
    Name,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveGib,
    PositiveInt,
    Spec,
    SpecError,
    SpecWithOptions,
)

Launcher = Literal["deepspeed", "torchrun", "ssh", "openmpi", "slurm", "kubernetes"]


class Restarts(SpecWithOptions):
    """What becomes of a run that fails: it is started again, from its last checkpoint."""

    written_where_set = frozenset({"delay_seconds", "longest_delay_seconds"})

    limit: NonNegativeInt
    """How often, at most; 0: never. Bad input, a diverged loss and the same failure at the same step three
    times in a row end a run for good before."""
    delay_seconds: NonNegativeFloat = 1.0
    """Before a restart. Doubled by each start in a row that comes to no step at all."""
    longest_delay_seconds: NonNegativeFloat = 300.0

    def delay_after(self, in_vain: int) -> float:
        """`in_vain`: starts in a row that came to no step."""
        return min(self.delay_seconds * 2.0 ** min(in_vain, 64), self.longest_delay_seconds)


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
    memory_gib_per_node: PositiveGib | None = None
    """Host memory to ask for; None: the partition's default."""


KubernetesName = Annotated[
    str, StringConstraints(pattern=r"^[a-z0-9]([a-z0-9.-]*[a-z0-9])?$", min_length=1, max_length=63)
]
"""A name that Kubernetes takes: small letters, digits, `-` and `.`."""
Image = Annotated[
    str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._:/@-]*$", min_length=1, max_length=512)
]
MountPath = Annotated[str, StringConstraints(pattern=r"^/[A-Za-z0-9._/-]*$", min_length=2, max_length=1024)]
"""An absolute path in a container. Nothing in it that Kubernetes would replace (`$(...)`)."""


class VolumeClaim(Spec):
    """A persistent volume claim, and where containers see it."""

    claim: KubernetesName
    mount: MountPath


class Kubernetes(SpecWithOptions):
    """What a Kubeflow PyTorchJob says beyond its plan."""

    written_where_set = frozenset(
        {"namespace", "service_account", "shared_memory_gib", "restarts", "gpu_resource", "notice_seconds"}
    )

    image: Image
    """With vdsgen[train]; by digest, if it is to be the same tomorrow."""
    claims: tuple[VolumeClaim, ...] = Field(min_length=1, max_length=16)
    """Shared by all nodes: clips, models, and runs. Training starts at the first one's mount."""
    directory: MountPath
    """Where the rendered directory lies in the container, below one of the claims."""
    output: MountPath
    """The run directory, below one of the claims."""
    namespace: KubernetesName | None = None
    service_account: KubernetesName | None = None
    shared_memory_gib: PositiveGib | None = None
    """Of /dev/shm, which NCCL and loader processes need; None: Kubernetes' 64 MiB."""
    restarts: NonNegativeInt = 3
    """How often a job that failed is started again, from its last checkpoint."""
    notice_seconds: PositiveInt = 120
    """Between the notice that a pod is to end, as when its node is drained or preempted, and its end: for the
    step that runs and a checkpoint."""
    gpu_resource: Name | None = None
    """The vendor's part before `/gpu`; None: nvidia.com."""

    @model_validator(mode="after")
    def _folders_are_on_claims(self) -> Self:
        mounts = [claim.mount.rstrip("/") for claim in self.claims]
        for key in ("directory", "output"):
            path = getattr(self, key)
            if ".." in path.split("/") or not any(path.startswith(f"{mount}/") for mount in mounts):
                raise SpecError(key, f"{key} is {path!r}, below none of the claims ({', '.join(mounts)})")
        return self
