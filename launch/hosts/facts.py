"""What a host says of itself: the answer of `vdsgen.launch.hosts.probe` to `look`."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from vdsgen.spec.base import NonNegativeInt, Spec


class DeviceProcess(Spec):
    """A process that holds memory of an accelerator."""

    pid: NonNegativeInt
    name: str
    memory_bytes: NonNegativeInt | None = None


class Device(Spec):
    """One accelerator, as its driver tells of it."""

    index: NonNegativeInt
    """As nvidia-smi counts: by the place on the bus."""
    name: str
    total_bytes: NonNegativeInt
    free_bytes: NonNegativeInt
    processes: tuple[DeviceProcess, ...] = ()
    uncorrected_errors: NonNegativeInt | None = None
    """Of its memory since the driver was loaded (volatile, double bit); None: not told."""
    slowed_by: tuple[str, ...] = ()
    """Why its clocks are lower than they would be right now: heat, power brakes."""
    refuses_processes: bool = False
    """Compute mode `prohibited`."""


Teller = Literal["nvml", "nvidia-smi", "amdgpu", "torch", "none"]
"""Where a host's devices were read."""


class Disk(Spec):
    """The file system that a path lies on, or will lie on."""

    path: str
    """What is there of the path that was asked for."""
    free_bytes: NonNegativeInt
    """For this user."""
    total_bytes: NonNegativeInt
    free_files: NonNegativeInt | None = None
    """Inodes; None where the file system has no limit of its own."""
    writable: bool = True


class InputState(Spec):
    """Something that training reads, as this host sees it."""

    found: bool
    problem: str | None = None
    """What the system said where it is not there, or not readable."""
    differing: tuple[str, ...] = ()
    """Of the files that were asked for, those that are missing or of another size here."""


class HostFacts(Spec):
    """A host before a job starts on it."""

    hostname: str
    versions: dict[str, str]
    """Of what takes part in training, by name; what is not there is left out."""
    code_sha256: str
    """Of vdsgen's own modules."""
    driver: str | None = None
    devices: tuple[Device, ...] = ()
    devices_from: Teller = "none"
    cores: NonNegativeInt
    """That a process of this user may use."""
    memory_total_bytes: NonNegativeInt
    memory_available_bytes: NonNegativeInt
    """What the kernel could still give, or the control group, whichever is less."""
    open_files: NonNegativeInt | None = None
    """Soft limit; None: none."""
    locked_memory_bytes: NonNegativeInt | None = None
    """Soft limit; None: none."""
    infiniband: bool = False
    shared_memory: Disk | None = None
    """Where processes of one host share memory."""
    output: Disk | None = None
    nvme: Disk | None = None
    nvme_problem: str | None = None
    rendered: dict[str, str]
    """SHA-256 of each file of the rendered directory that could be read."""
    inputs: dict[str, InputState]


class InputRequest(Spec):
    """What to look for: a key of train.yaml, its path, and some files in it with their sizes."""

    path: str
    samples: dict[str, NonNegativeInt] = Field(default_factory=dict)
    """Paths within it -> bytes, as the launcher sees them."""


class LookRequest(Spec):
    """What a host is to look at. Paths are as its ranks will see them."""

    accelerators: bool
    """False: ranks run on processors, and nobody asks for GPUs."""
    directory: str
    files: tuple[str, ...]
    """Of the rendered directory."""
    output: str
    nvme: str | None = None
    inputs: dict[str, InputRequest] = Field(default_factory=dict)
