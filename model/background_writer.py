"""Checkpoint files that are written while training goes on: a thread of each rank writes copies of what the
engine saves.

DeepSpeed 0.19.8 has writers of its own (`checkpoint.writer`), which do not serve pipelines: docs/saving.md
says what they do and how that was seen. This one stands in for DeepSpeed's TorchCheckpointEngine, through the
same interface (runtime/checkpoint_engine/checkpoint_engine.py).
"""

from __future__ import annotations

import copy
import os
import threading
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import torch
from deepspeed.accelerator import get_accelerator
from deepspeed.runtime.checkpoint_engine import TorchCheckpointEngine
from torch import Tensor

from vdsgen.spec.checkpoints import sha256_of


@dataclass(slots=True)
class BackgroundSave:
    """The files of one checkpoint that this rank writes, and what has come of them."""

    folder: Path
    hashes: dict[str, str] = field(default_factory=dict)
    """SHA-256 of each file that is on the disk, by its path within the folder."""
    error: str | None = None
    """Why the first file that could not be written could not; nothing is written after it."""
    seconds: float = 0.0
    """From the first file's copy to the last file's hash."""
    done: threading.Event = field(default_factory=threading.Event)


class BackgroundCheckpointEngine(TorchCheckpointEngine):  # type: ignore[misc]
    """`begin` a save, let the engine save into it, and `end` it: files are written and flushed to the disk by
    a thread, from copies of the tensors as they were. One save at a time.

    The copies' memory is kept for the next save: as many bytes as this rank saves."""

    def __init__(self, engine_config: Any) -> None:
        super().__init__(engine_config)
        self.name = type(self).__name__
        self._memory = HostMemory()
        self._jobs: SimpleQueue[_Job | BackgroundSave] = SimpleQueue()
        self._current: BackgroundSave | None = None
        self._began = 0.0
        threading.Thread(target=self._write_all, name="checkpoint writer", daemon=True).start()

    @property
    def held_bytes(self) -> int:
        """Of host memory that copies have."""
        return self._memory.held_bytes

    def begin(self, folder: Path) -> None:
        """What is saved from here on belongs to this checkpoint."""
        assert self._current is None, "one save at a time"
        self._current, self._began = BackgroundSave(folder), time.perf_counter()

    def save(self, state_dict: Any, path: str) -> None:
        """Copies, and returns: DeepSpeed calls this for every file."""
        assert self._current is not None, "save without begin"
        copied = self._memory.copy_of(state_dict)
        get_accelerator().synchronize()  # copies from an accelerator are on their way until then
        self._jobs.put(_Job(self._current, copied, Path(path)))

    def end(self) -> BackgroundSave:
        """The save under way; its `done` is set when all is written, or one file could not be."""
        assert self._current is not None, "end without begin"
        save, self._current = self._current, None
        self._jobs.put(save)
        return save

    def preserves_storage_sharing(self) -> bool:
        """False: the engine need not clone tensors before (runtime/pipe/module.py:630), they are copied."""
        return False

    def _write_all(self) -> None:
        while True:
            job = self._jobs.get()
            if isinstance(job, BackgroundSave):
                job.seconds = time.perf_counter() - self._began
                self._memory.release()
                job.done.set()
            elif job.save.error is None:
                try:
                    job.save.hashes[str(job.path.relative_to(job.save.folder))] = self._written(job)
                except Exception as error:  # a full disk is a RuntimeError of torch's writer
                    job.save.error = f"{job.path.name}: {error}"

    def _written(self, job: _Job) -> str:
        """The file, on the disk, and its hash. Writing, flushing and hashing release Python's lock."""
        torch.save(job.state, job.path, _use_new_zipfile_serialization=self.zipfile_serialization)
        with job.path.open("rb") as stream:
            os.fsync(stream.fileno())
        return sha256_of(job.path)


@dataclass(frozen=True, slots=True)
class _Job:
    save: BackgroundSave
    state: Any
    path: Path


class HostMemory:
    """Copies of what is saved. Buffers are used again by later saves, which save the same tensors: getting
    memory from the system takes longer than filling it. Page-locked beside an accelerator."""

    def __init__(self) -> None:
        self._free: dict[int, list[Tensor]] = {}
        self._used: list[Tensor] = []
        self._lock = threading.Lock()
        self._pinned = get_accelerator().device_name() != "cpu"

    @property
    def held_bytes(self) -> int:
        return sum(len(buffers) * size for size, buffers in self._free.items()) + sum(
            buffer.numel() for buffer in self._used
        )

    def copy_of(self, state: Any) -> Any:
        """Everything in `state`, tensors in host memory, each with a storage of its own: a view of a large
        buffer becomes as large as it looks. A tensor that is there twice stays one."""
        memo: dict[int, Any] = {}
        flat: dict[Any, Tensor] = {}
        for tensor in _tensors(state):
            if id(tensor) not in memo:
                memo[id(tensor)] = self._on_host(tensor, flat)
        return copy.deepcopy(state, memo)

    def release(self) -> None:
        """All copies have been written."""
        with self._lock:
            for buffer in self._used:
                self._free.setdefault(buffer.numel(), []).append(buffer)
            self._used.clear()

    def _on_host(self, tensor: Tensor, copies: dict[Any, Tensor]) -> Tensor:
        """`copies`: of the same state, by where they were; DeepSpeed saves frozen weights under two names."""
        size = tensor.numel() * tensor.element_size()
        place = (tensor.data_ptr(), tensor.dtype, tensor.shape, tensor.stride())
        copied = copies.get(place) if size else torch.empty(tensor.shape, dtype=tensor.dtype)
        if copied is None:
            copied = copies[place] = self._take(size).view(tensor.dtype).view(tensor.shape)
            copied.copy_(tensor.detach(), non_blocking=True)
        copied = copied.detach()
        if isinstance(tensor, torch.nn.Parameter):
            return torch.nn.Parameter(copied, requires_grad=tensor.requires_grad)
        return copied.requires_grad_(tensor.requires_grad)

    def _take(self, size_bytes: int) -> Tensor:
        with self._lock:
            free = self._free.get(size_bytes)
            buffer = free.pop() if free else None
            if buffer is None:
                buffer = torch.empty(size_bytes, dtype=torch.uint8, pin_memory=self._pinned)
            self._used.append(buffer)
            return buffer


def _tensors(state: Any) -> Iterator[Tensor]:
    """Those in containers; what hides in other objects is copied with them, where it lies."""
    if isinstance(state, Tensor):
        yield state
    elif isinstance(state, Mapping):
        yield from _all_of(state.values())
    elif isinstance(state, list | tuple | set):
        yield from _all_of(state)


def _all_of(parts: Iterable[Any]) -> Iterator[Tensor]:
    for part in parts:
        yield from _tensors(part)
