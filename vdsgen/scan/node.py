"""A machine in a lab file's terms."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field

from vdsgen.errors import VdsgenError
from vdsgen.scan.answer import Answer, Device
from vdsgen.scan.gpu_figures import gpu_said
from vdsgen.scan.gpu_links import host_links, intra_node
from vdsgen.scan.network import network_said
from vdsgen.scan.said import Said
from vdsgen.units import GIB

IN_USE_FRACTION = 0.05
"""Of a GPU's memory: a display or an idle driver takes less."""

MOST_RANKS = 4
"""Of a machine without GPUs, as a proposal."""


@dataclass(frozen=True, slots=True)
class Node:
    """Nodes with equal `hardware` are alike."""

    host: str
    hardware: dict[str, Said]
    """Keys of a pool, without its host memory: of equal machines that differs by what firmware keeps."""
    host_memory_gib: int
    remarks: tuple[str, ...] = field(default=())
    """What the file does not say in keys; for comments."""

    @property
    def kinds(self) -> tuple[Said, ...]:
        """Each GPU's kind, by device number; of a machine of one kind, once."""
        if "gpus" in self.hardware:
            return tuple(self.hardware["gpus"].value)
        return (self.hardware["gpu"],)

    @property
    def on_processors(self) -> bool:
        return "gpu" in self.hardware and self.hardware["gpu"].value == "cpu"


def node_of(answer: Answer, host: str) -> Node:
    """What a machine is. Raises VdsgenError where it has GPUs that cannot be described or used."""
    memory_gib = max(1, int(answer.memory_bytes / GIB))
    if not answer.gpus.devices:
        return Node(host, _processor(answer), memory_gib, (_without_gpus(answer),))
    devices = answer.gpus.devices
    kinds = [_kind(device, index) for index, device in enumerate(devices)]
    used = [index for index, device in enumerate(devices) if not device.mig]
    if not used:
        raise VdsgenError(
            "MIG is on, so its GPUs are slices that cannot train together",
            remedy="`nvidia-smi -mig 0` there, as root, with nothing running",
        )
    hardware = _gpus(kinds)
    remarks: list[str] = []
    if "gpus" in hardware:
        remarks += dict.fromkeys(kind.comment for kind in kinds if kind.inside)
    if len(used) < len(devices):
        hardware["free_gpus"] = Said(
            used, f"MIG cuts {_listed(set(range(len(devices))) - set(used))} into slices"
        )
    remarks += _in_use(devices, used)
    values = [kind.value for kind in kinds]
    hardware["intra_node"] = intra_node(answer.gpus, values, used)
    hardware |= network_said(answer)
    hardware |= host_links(answer.gpus, values, used)
    hardware["cpu_cores"] = Said(answer.cpu_cores)
    return Node(host, hardware, memory_gib, (*remarks, *_drives(answer)))


def _in_use(devices: Sequence[Device], used: Sequence[int]) -> list[str]:
    """A comment only: whether they stay in use, the person who reads the file knows."""
    busy = [
        index for index in used if devices[index].used_bytes > IN_USE_FRACTION * devices[index].memory_bytes
    ]
    free = [index for index in used if index not in busy]
    if not busy:
        return []
    avoided = f": `free_gpus: {free}` keeps jobs away" if free else ""
    return [f"{_listed(busy)} in use when scanned{avoided}"]


def _kind(device: Device, index: int) -> Said:
    said = gpu_said(device)
    if said is None:
        raise VdsgenError(
            f"GPU {index}, {device.name}, is not in the catalogue, and nvidia-smi does not tell its rates",
            remedy="`pip install nvidia-ml-py` for the python3 there, or write its pool yourself",
        )
    return said


def _gpus(kinds: list[Said]) -> dict[str, Said]:
    if len({str(kind.value) for kind in kinds}) > 1:
        return {"gpus": Said(tuple(kinds), "by device number, as nvidia-smi counts")}
    return {"gpu": kinds[0], "gpus_per_node": Said(len(kinds))}


def _processor(answer: Answer) -> dict[str, Said]:
    ranks = max(1, min(MOST_RANKS, answer.cpu_cores))
    return {
        "gpu": Said("cpu", "the ranks share the node's memory"),
        "gpus_per_node": Said(ranks, "ranks: any number, they share its cores"),
        "intra_node": Said("shared-memory"),
        **network_said(answer),
        "cpu_cores": Said(answer.cpu_cores),
    }


def _without_gpus(answer: Answer) -> str:
    return f"no GPU found: {answer.gpus.problem or 'the driver names none'}"


def _drives(answer: Answer) -> list[str]:
    """NVMe as a comment: how fast it is, nobody told."""
    return [
        f"NVMe {drive.model or 'drive'}: `nvme: {{path: {drive.path}, "
        f"capacity_gib: {int(drive.size_bytes / GIB)}, read_gb_per_second: ..., write_gb_per_second: ...}}` "
        "lets plans use it; measure its rates first"
        for drive in answer.nvme
    ]


def _listed(devices: Collection[int]) -> str:
    numbers = sorted(devices)
    return ("GPU " if len(numbers) == 1 else "GPUs ") + ", ".join(map(str, numbers))
