"""Peak memory of a rank: the accelerator's own count, or on a processor what the process has grown by."""

from __future__ import annotations

import ctypes
import gc
import os
from pathlib import Path

from deepspeed.accelerator import get_accelerator

STATUS = Path("/proc/self/status")
CLEAR_REFERENCES = Path("/proc/self/clear_refs")
RESET_PEAK = "5"
"""Sets VmHWM back to the present resident size: proc_pid_clear_refs(5)."""


class PeakMemory:
    """Made before the model; then `take()` gives the peak of each step.

    On an accelerator: the largest sum of allocated tensors (max_memory_allocated; neither the allocator's
    cache nor the driver's context). On a processor: the largest resident size, less what the process had
    before the model was built. That is tensors, plus what the heap keeps of freed ones and what libraries
    allocate on first use; data loader workers are processes of their own and not in it.
    """

    def __init__(self) -> None:
        self.on_cpu = get_accelerator().device_name() == "cpu"
        self._baseline_bytes = 0
        if self.on_cpu:
            gc.collect()
            _return_free_heap()
            self._reset()
            self._baseline_bytes = _resident_bytes("VmRSS")
        else:
            self._reset()

    @property
    def meaning(self) -> str:
        """For people: what the figures are."""
        if self.on_cpu:
            return "growth of each rank's resident memory since before the model was built"
        return "tensors allocated on each GPU (max_memory_allocated)"

    def take(self) -> int:
        """Bytes at the peak since the last call."""
        if self.on_cpu:
            peak = max(0, _resident_bytes("VmHWM") - self._baseline_bytes)
        else:
            peak = int(get_accelerator().max_memory_allocated())
        self._reset()
        return peak

    def _reset(self) -> None:
        if not self.on_cpu:
            get_accelerator().reset_peak_memory_stats()
        elif os.access(CLEAR_REFERENCES, os.W_OK):
            # Where the kernel does not let us, the peak is the run's so far.
            CLEAR_REFERENCES.write_text(RESET_PEAK)


def _resident_bytes(field: str) -> int:
    line = next(line for line in STATUS.read_text().splitlines() if line.startswith(f"{field}:"))
    return int(line.split()[1]) * 1024


def _return_free_heap() -> None:
    """Otherwise the first tensors would fill holes that importing left, and count for nothing (glibc)."""
    try:
        ctypes.CDLL("libc.so.6").malloc_trim(0)
    except (OSError, AttributeError):
        return
