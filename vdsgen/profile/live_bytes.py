"""Counts the bytes of tensors that are alive, while real code runs."""

from __future__ import annotations

import weakref
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class LiveBytes(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Bytes of every storage that an operator put out and that is still held, and their peaks.

    Workspace inside an operator is not seen, nor is what existed before. Storages are counted once,
    however many tensors view them.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.live_bytes = 0
        self.peak_bytes = 0
        self._held: dict[int, tuple[weakref.ref[Any], int]] = {}
        self._phases: dict[str, int] = {}
        self._phase = ""

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        for leaf in (result,) if isinstance(result, torch.Tensor) else tree_leaves(result):
            if isinstance(leaf, torch.Tensor) and not leaf.is_meta:
                self._see(leaf.untyped_storage())
        return result

    def _see(self, storage: torch.UntypedStorage) -> None:
        key = storage._cdata
        size = storage.nbytes()
        known = self._held.get(key)
        if known is not None and known[0]() is not None:
            if known[1] != size:
                self._held[key] = (known[0], size)
                self._add(size - known[1])
            return

        def freed(_: Any) -> None:
            entry = self._held.pop(key, None)
            if entry is not None:
                self.live_bytes -= entry[1]

        self._held[key] = (weakref.ref(storage, freed), size)
        self._add(size)

    def _add(self, size: int) -> None:
        self.live_bytes += size
        self.peak_bytes = max(self.peak_bytes, self.live_bytes)
        if self._phase:
            self._phases[self._phase] = max(self._phases.get(self._phase, 0), self.live_bytes)

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """While inside, the peak is also kept under this name."""
        before, self._phase = self._phase, name
        self._phases[name] = max(self._phases.get(name, 0), self.live_bytes)
        try:
            yield
        finally:
            self._phase = before

    def peak_of(self, name: str) -> int:
        return self._phases[name]

    def forget_peaks(self) -> None:
        self._phases.clear()
        self.peak_bytes = self.live_bytes


def storage_bytes(tensors: Iterator[torch.Tensor] | list[torch.Tensor]) -> int:
    """Bytes of the distinct storages behind these tensors."""
    seen: dict[int, int] = {}
    for tensor in tensors:
        storage = tensor.untyped_storage()
        seen[storage.data_ptr()] = storage.nbytes()
    seen.pop(0, None)
    return sum(seen.values())
