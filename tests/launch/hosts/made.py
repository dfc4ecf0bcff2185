"""Facts and expectations made up, for what is pure."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tests.render.plans import plan_of
from vdsgen.launch.hosts.expected import Expected, PlannedHost, PlannedRank
from vdsgen.launch.hosts.facts import Device, Disk, HostFacts
from vdsgen.spec.plan import Stage
from vdsgen.units import GIB

RTX_3090 = "NVIDIA GeForce RTX 3090"


def facts(**changes: Any) -> HostFacts:
    """A host with one GPU, as planned."""
    values: dict[str, Any] = {
        "hostname": "n",
        "versions": {"python": "3.11.7", "vdsgen": "0.1.0", "torch": "2.9.0", "deepspeed": "0.19.8",
                     "av": "15.0", "numpy": "2.3.0", "NCCL": "2.27.5"},
        "code_sha256": "c" * 64,
        "driver": "570.86",
        "devices": (gpu(),),
        "devices_from": "nvml",
        "cores": 16,
        "memory_total_bytes": 128 * GIB,
        "memory_available_bytes": 120 * GIB,
        "shared_memory": disk(64 * GIB),
        "output": disk(1000 * GIB),
        "rendered": {"plan.json": "p" * 64},
        "inputs": {},
    }  # fmt: skip
    return HostFacts(**(values | changes))


def gpu(index: int = 0, **changes: Any) -> Device:
    values: dict[str, Any] = {"name": RTX_3090, "total_bytes": 24 * GIB, "free_bytes": 23 * GIB + GIB // 2}
    return Device(index=index, **(values | changes))


def disk(free_bytes: int, **changes: Any) -> Disk:
    return Disk(**{"path": "/lab/runs", "free_bytes": free_bytes, "total_bytes": 2000 * GIB, **changes})


def stage(**changes: Any) -> Stage:
    return plan_of(2, 1).stages[0].model_copy(update=changes)


def planned(name: str = "n1", ranks: int = 1, first: int = 0, **changes: Any) -> PlannedHost:
    of: Stage = changes.pop("stage", stage())
    product = changes.pop("product", RTX_3090)
    values: dict[str, Any] = {
        "name": name,
        "ranks": tuple(PlannedRank(first + local, local, product, of) for local in range(ranks)),
        "reads_clips": True,
        "cores": 16,
        "memory_bytes": 128 * GIB,
        "loader_bytes": 0,
        "intra_bytes_per_second": 20e9,
        "inter_bytes_per_second": 10e9,
    }
    return PlannedHost(**(values | changes))


def expected(*hosts: PlannedHost, **changes: Any) -> Expected:
    values: dict[str, Any] = {
        "hosts": hosts or (planned(),),
        "on_cpu": False,
        "directory": Path("/lab/plan"),
        "output": Path("/lab/runs/1"),
        "checkpoint_bytes": 20 * GIB,
        "checkpoints": 4,
        "nvme": None,
        "loader_processes": 2,
    }
    return Expected(**(values | changes))
