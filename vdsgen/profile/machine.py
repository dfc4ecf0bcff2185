"""What a lab file says of the machine that this process runs on."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Machine:
    """What a lab file says of one node."""

    host_memory_bytes: int
    cpu_cores: int
    accelerator: str | None = None
    """Name of its first GPU, as torch gives it; None: a processor only."""
    accelerators: int = 0
    accelerator_memory_bytes: int = 0


def this_machine() -> Machine:
    """Memory, the cores this process may use, and its GPUs. Imports torch."""
    page_bytes = os.sysconf("SC_PAGE_SIZE")
    memory_bytes = page_bytes * os.sysconf("SC_PHYS_PAGES")
    limit = _cgroup_memory_limit_bytes()
    if limit is not None:
        memory_bytes = min(memory_bytes, limit)
    cores = len(os.sched_getaffinity(0))
    import torch

    if not torch.cuda.is_available():
        return Machine(host_memory_bytes=memory_bytes, cpu_cores=cores)
    first = torch.cuda.get_device_properties(0)
    return Machine(memory_bytes, cores, first.name, torch.cuda.device_count(), first.total_memory)


def _cgroup_memory_limit_bytes() -> int | None:
    """The container's limit (cgroup v2, memory.max), if there is one."""
    try:
        text = Path("/sys/fs/cgroup/memory.max").read_text().strip()
    except OSError:
        return None
    return int(text) if text.isdigit() else None
