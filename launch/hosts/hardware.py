"""Whether a host's devices, memory and limits are what the plan takes them for. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import groupby

from vdsgen.catalog.gpu_names import same_product
from vdsgen.launch.hosts.expected import Expected, PlannedHost, PlannedRank
from vdsgen.launch.hosts.facts import Device, HostFacts
from vdsgen.launch.hosts.finding import Finding, Severity
from vdsgen.launch.hosts.words import MIB, names, size

SHARED_MEMORY = "/dev/shm"  # noqa: S108 - not written to
SLACK = 0.97
"""Drivers and kernels keep a few percent of what is in the box for themselves."""
NCCL_BYTES = 64 * MIB
"""Of /dev/shm that a rank's channels to its neighbours on the same host may take: a container's usual 64 MiB
do not hold the channels of several."""
SMALLEST_OPEN_FILES, FILES_OF_A_PEER, FILES_OF_A_LOADER = 256, 8, 64
"""Rules of thumb for what a rank has open: its libraries and logs, a socket or so for each process group that
it shares with another rank, and what loader processes hand over."""


def compare_devices(planned: PlannedHost, facts: HostFacts) -> Iterator[Finding]:
    """GPUs: there, of the planned kind, whole, and free. Of a host whose ranks have one each."""
    by_index = {device.index: device for device in facts.devices}
    absent = [rank.device for rank in planned.ranks if rank.device not in by_index]
    if absent:
        known = f"{len(by_index)} GPU{'s' * (len(by_index) > 1)}" if by_index else "no GPU"
        there = "there are" if len(by_index) > 1 else "there is"
        told = "" if facts.devices_from == "none" else f" ({facts.devices_from})"
        what = f"the plan uses GPU {names(list(map(str, absent)))}, {there} {known}{told}"
        remedy = "nvidia-smi there says whether the driver is up; else correct gpus_per_node or free_gpus"
        yield _devices(planned, "error", what, remedy)
    for rank in planned.ranks:
        device = by_index.get(rank.device) if rank.device is not None else None
        if device is not None:
            yield from _device(planned, rank, device)


def _device(planned: PlannedHost, rank: PlannedRank, device: Device) -> Iterator[Finding]:
    where = f"GPU {device.index} ({device.name})"
    capacity = rank.stage.capacity_bytes
    if rank.product is not None and not same_product(rank.product, device.name):
        yield _devices(
            planned,
            "error",
            f"{where} is no {rank.product}, which the plan was made for",
            "correct `gpu:` in the lab file and generate again",
        )
    if device.total_bytes < SLACK * capacity:
        yield _devices(
            planned,
            "error",
            f"{where} has {size(device.total_bytes)}, the plan counts on {size(capacity)}",
            "correct the GPU's memory in the lab file and generate again",
        )
    elif device.free_bytes < min(rank.stage.memory.peak_bytes, SLACK * capacity):
        short = device.free_bytes < rank.device_bytes
        yield _devices(
            planned,
            "error" if short else "warning",
            f"{where} has {size(device.free_bytes)} free of {size(device.total_bytes)}{_holders(device)}; "
            f"rank {rank.rank} needs {size(rank.device_bytes)}",
            "end them, or leave the GPU out with free_gpus in the lab file and generate again",
        )
    elif device.processes:
        yield _devices(
            planned,
            "warning",
            f"{where} is used{_holders(device)}: steps will be slower",
            "end them, or wait",
        )
    if device.uncorrected_errors:
        yield _devices(
            planned,
            "error",
            f"{where} had {device.uncorrected_errors} memory errors that ECC could not correct",
            f"reset it (nvidia-smi --gpu-reset --id={device.index}) or leave it out with free_gpus",
        )
    if device.refuses_processes:
        yield _devices(
            planned,
            "error",
            f"{where} lets no process compute (compute mode: prohibited)",
            f"nvidia-smi --id={device.index} --compute-mode=DEFAULT",
        )
    if device.slowed_by:
        yield _devices(
            planned,
            "warning",
            f"{where} is slowed down by {' and '.join(device.slowed_by)}",
            "see to its cooling and power; the slowest rank sets the pace of all",
        )


def _holders(device: Device) -> str:
    if not device.processes:
        return ""
    shown = [
        f"{one.name} ({one.pid}{'' if one.memory_bytes is None else ', ' + size(one.memory_bytes)})"
        for one in device.processes
    ]
    return f" by {names(shown)}"


def compare_memory(expected: Expected, planned: PlannedHost, facts: HostFacts) -> Iterator[Finding]:
    """The host's own memory: ranks on processors, and what offload and asynchronous saving keep there."""
    tensors = sum(
        rank.copied_bytes
        + (rank.stage.measured_bytes(on_processor=True) if expected.on_cpu else rank.stage.host_bytes)
        for rank in planned.ranks
    )
    if tensors > facts.memory_available_bytes:
        what = "its ranks need" if expected.on_cpu else "offload and copies of checkpoints need"
        # A kernel may swap, and gives back what it caches: on a processor nothing is certain.
        severity: Severity = "warning" if expected.on_cpu else "error"
        yield _memory(
            planned,
            severity,
            f"{size(facts.memory_available_bytes)} of memory are free, {what} {size(tensors)}",
            "end what else runs there, or correct host_memory_gib in the lab file and generate again",
        )
    if facts.memory_total_bytes < (SLACK - 0.05) * planned.memory_bytes:
        yield _memory(
            planned,
            "warning",
            f"has {size(facts.memory_total_bytes)} of memory, the lab file says {size(planned.memory_bytes)}",
            "correct host_memory_gib in the lab file and generate again",
        )
    if planned.cores is not None and facts.cores < planned.cores:
        yield _memory(
            planned,
            "warning",
            f"a process may use {facts.cores} cores, the lab file says {planned.cores}",
            "correct cpu_cores in the lab file, or the container's limit",
        )


def compare_limits(expected: Expected, planned: PlannedHost, facts: HostFacts) -> Iterator[Finding]:
    needed = (
        SMALLEST_OPEN_FILES
        + FILES_OF_A_PEER * expected.world_size
        + FILES_OF_A_LOADER * expected.loader_processes
    )
    if facts.open_files is not None and facts.open_files < needed:
        yield _limits(
            planned,
            f"a process may open {facts.open_files} files, a rank of this job takes {needed} or so",
            "ulimit -n 65536, for good in /etc/security/limits.conf",
        )
    if not expected.on_cpu and facts.infiniband and facts.locked_memory_bytes is not None:
        yield _limits(
            planned,
            f"a process may lock {size(facts.locked_memory_bytes)} of memory, InfiniBand wants no limit",
            "ulimit -l unlimited, for good in /etc/security/limits.conf; --ulimit memlock=-1 in a container",
        )
    shared = planned.loader_bytes
    if not expected.on_cpu and len(planned.ranks) > 1:
        shared += NCCL_BYTES * len(planned.ranks)
    if facts.shared_memory is not None and facts.shared_memory.free_bytes < shared:
        yield _limits(
            planned,
            f"{SHARED_MEMORY} has {size(facts.shared_memory.free_bytes)} free, loaders and ranks may take "
            f"{size(shared)}",
            "a larger one: --shm-size in a container, mount -o remount,size=16G /dev/shm elsewhere",
        )


def device_summary(facts: HostFacts) -> str:
    """`4 NVIDIA A100-SXM4-80GB`, several kinds one after the other."""
    kinds = [(name, len(list(group))) for name, group in groupby(device.name for device in facts.devices)]
    return ", ".join(f"{count} {name}" for name, count in kinds) or "no GPU"


def _devices(planned: PlannedHost, severity: Severity, message: str, remedy: str) -> Finding:
    return Finding(severity=severity, check="devices", host=planned.name, message=message, remedy=remedy)


def _memory(planned: PlannedHost, severity: Severity, message: str, remedy: str) -> Finding:
    return Finding(severity=severity, check="memory", host=planned.name, message=message, remedy=remedy)


def _limits(planned: PlannedHost, message: str, remedy: str) -> Finding:
    return Finding(severity="warning", check="limits", host=planned.name, message=message, remedy=remedy)
