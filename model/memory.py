"""Peak memory of a rank: the accelerator's own count, or on a processor what the kernel counts."""

from __future__ import annotations

import ctypes
import gc
import os
from pathlib import Path

import torch
from deepspeed.accelerator import get_accelerator

from vdsgen.spec.run import WARM_UP_STEPS

STATUS = Path("/proc/self/status")
MEMORY = Path("/proc/meminfo")
CLEAR_REFERENCES = Path("/proc/self/clear_refs")
RESET_PEAK = "5"
"""Sets VmHWM back to the present resident size: proc_pid_clear_refs(5)."""

EXACT_STEPS = WARM_UP_STEPS
"""First steps of each size that clips come in, on a processor, in which every large block of memory is a
mapping of its own, so that what is freed is given back at once. It costs a page fault for every 4 KiB: such a
step takes up to 1.8 x the time."""
OWN_MAPPING_BYTES, USUAL_MAPPING_BYTES = 128 * 1024, 32 * 1024**2
"""Where blocks begin to be mappings: in the exact steps (glibc's start value), and after (its largest)."""
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
"""mallopt(3)"""


class PeakMemory:
    """Made before the model; `training_begins()` before the first step; then `take()` gives
    the peak of each step.

    On an accelerator: the largest sum of allocated tensors (max_memory_allocated; neither the allocator's
    cache nor the driver's context). On a processor: the largest resident memory that is no file's, less
    what the process had before the model and what building the engine added besides tensors (torch's
    optimizers import half of torch). What is left in the first `exact_steps` is tensors; in later ones what
    the heap keeps of freed ones, too. Data loader workers are processes of their own and not in it.
    """

    def __init__(self, sizes: int = 1) -> None:
        """`sizes`: how many sizes clips come in, which take turns."""
        self.exact_steps = EXACT_STEPS * sizes
        self.on_cpu = get_accelerator().device_name() == "cpu"
        self._tensor_bytes_before = _tensor_bytes() if self.on_cpu else 0
        self._other_bytes = 0
        self._taken = 0
        if self.on_cpu:
            _map_blocks_from(OWN_MAPPING_BYTES)

    def training_begins(self) -> None:
        """From now on the process holds what it will hold besides tensors."""
        if self.on_cpu:
            _return_free_heap()
            added = _tensor_bytes() - self._tensor_bytes_before
            self._other_bytes = _resident_bytes("RssAnon") - added
        self._reset()

    @property
    def meaning(self) -> str:
        """For people: what the figures are."""
        if self.on_cpu:
            return f"resident memory of each rank in the first {self.exact_steps} steps, less all but tensors"
        return "tensors allocated on each GPU (max_memory_allocated)"

    def take(self) -> int:
        """Bytes at the peak of a step: since the last call of this or of `take_between`."""
        peak = self._peak()
        self._taken += 1
        if self.on_cpu and self._taken == self.exact_steps:
            _map_blocks_from(USUAL_MAPPING_BYTES)
        self._reset()
        return peak

    def take_between(self) -> int:
        """The same of what runs between steps, and is no part of any."""
        peak = self._peak()
        self._reset()
        return peak

    def _peak(self) -> int:
        if self.on_cpu:
            files = _resident_bytes("RssFile") + _resident_bytes("RssShmem")
            return max(0, _resident_bytes("VmHWM") - files - self._other_bytes)
        return int(get_accelerator().max_memory_allocated())

    def held(self) -> int:
        """Bytes held now: call it between steps. On a processor, all of the process's own."""
        return _resident_bytes("RssAnon") if self.on_cpu else int(get_accelerator().memory_allocated())

    def _reset(self) -> None:
        if not self.on_cpu:
            get_accelerator().reset_peak_memory_stats()
        elif os.access(CLEAR_REFERENCES, os.W_OK):
            # Where the kernel does not let us, the peak is the run's so far.
            CLEAR_REFERENCES.write_text(RESET_PEAK)


def _tensor_bytes() -> int:
    """Of all tensors that Python knows, on the processor; storage that several share is counted once."""
    gc.collect()
    storages = {}
    for thing in gc.get_objects():
        # By type: isinstance would wake up libraries' lazy modules.
        if issubclass(type(thing), torch.Tensor) and thing.device.type == "cpu":
            storage = thing.untyped_storage()
            storages[storage.data_ptr()] = storage.nbytes()
    return sum(storages.values())


def _resident_bytes(field: str) -> int:
    line = next(line for line in STATUS.read_text().splitlines() if line.startswith(f"{field}:"))
    return int(line.split()[1]) * 1024


def free_host_bytes() -> int:
    """What the kernel could still give to processes."""
    line = next(line for line in MEMORY.read_text().splitlines() if line.startswith("MemAvailable:"))
    return int(line.split()[1]) * 1024


def _return_free_heap() -> None:
    """What was freed while the engine was built is no part of what training holds."""
    if (libc := _glibc()) is not None:
        libc.malloc_trim(0)


def _map_blocks_from(size_bytes: int) -> None:
    if (libc := _glibc()) is not None:
        libc.mallopt(M_MMAP_THRESHOLD, size_bytes)
        libc.mallopt(M_TRIM_THRESHOLD, 2 * size_bytes)


def _glibc() -> ctypes.CDLL | None:
    """None where the C library is another one: figures then include what its heap keeps."""
    try:
        libc = ctypes.CDLL("libc.so.6")
    except OSError:
        return None
    return libc if hasattr(libc, "malloc_trim") and hasattr(libc, "mallopt") else None
