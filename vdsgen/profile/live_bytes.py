"""Counts the bytes of tensors that are alive, while real code runs."""

from __future__ import annotations

import weakref
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

HOST = "host"
"""The owner of what lies in host memory: on a processor, where device and host are one, it is told by who
owns it. It is no part of what is alive on the device."""

_prim_device = torch.ops.prim.device.default


class LiveBytes(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Bytes of every storage that an operator put out and that is still held, and their peaks.

    Works on real and fake tensors. Nothing is seen of what existed before. Storages are counted once,
    however many tensors view them; what HOST owns, only in `peak_of`. A storage belongs to the owner that was
    named when it was born, or else to the first that claims it. `hidden_bytes(func, args)` says what an
    operator allocates inside its kernel, which counts for the moment that the operator runs; without it, such
    workspace is not seen.
    """

    def __init__(self, hidden_bytes: Callable[[Any, tuple[Any, ...]], int] | None = None) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.live_bytes = 0
        self.peak_bytes = 0
        self._hidden_bytes = hidden_bytes
        self._held: dict[int, _Held] = {}
        self._phases: dict[str, int] = {}
        self._phase = ""
        self._owner = ""
        self._live_of: defaultdict[str, int] = defaultdict(int)
        self._peaks_of: defaultdict[tuple[str, str], int] = defaultdict(int)

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        if func is _prim_device:  # fake tensors ask for their device all the time
            return func(*args)
        result = func(*args, **(kwargs or {}))
        for leaf in (result,) if isinstance(result, torch.Tensor) else tree_leaves(result):
            if isinstance(leaf, torch.Tensor) and not leaf.is_meta:
                self._see(leaf.untyped_storage())
        if self._hidden_bytes is not None and (hidden := self._hidden_bytes(func, args)):
            self._add(hidden, self._owner)
            self._add(-hidden, self._owner)
        return result

    def _see(self, storage: torch.UntypedStorage) -> None:
        key = storage._cdata
        size = storage.nbytes()
        known = self._held.get(key)
        if known is not None and known.reference() is not None:
            if known.size != size:
                grown, known.size = size - known.size, size
                self._add(grown, known.owner)
            return

        def freed(_: Any) -> None:
            entry = self._held.pop(key, None)
            if entry is not None:
                self._add(-entry.size, entry.owner)

        self._held[key] = _Held(weakref.ref(storage, freed), size, self._owner)
        self._add(size, self._owner)

    def _add(self, size: int, owner: str) -> None:
        if owner != HOST:
            self.live_bytes += size
        self._live_of[owner] += size
        if size <= 0:
            return
        self.peak_bytes = max(self.peak_bytes, self.live_bytes)
        if self._phase:
            self._phases[self._phase] = max(self._phases.get(self._phase, 0), self.live_bytes)
            key = (self._phase, owner)
            self._peaks_of[key] = max(self._peaks_of[key], self._live_of[owner])

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """While inside, peaks are also kept under this name."""
        before, self._phase = self._phase, name
        self._phases[name] = max(self._phases.get(name, 0), self.live_bytes)
        for owner, live in self._live_of.items():
            self._peaks_of[name, owner] = max(self._peaks_of[name, owner], live)
        try:
            yield
        finally:
            self._phase = before

    @contextmanager
    def owner(self, name: str) -> Iterator[None]:
        """Storages that are born inside belong to `name`; outside of all owners, to ''."""
        before, self._owner = self._owner, name
        try:
            yield
        finally:
            self._owner = before

    def claim(self, tensors: Iterable[torch.Tensor], owner: str) -> None:
        """The storages behind these tensors belong to `owner` from now on, where nobody owns them yet."""
        for tensor in tensors:
            entry = self._held.get(storage_key(tensor))
            if entry is not None and not entry.owner:
                self._add(-entry.size, "")
                entry.owner = owner
                self._add(entry.size, owner)

    def owned(self, tensors: Iterable[torch.Tensor], owner: str) -> list[torch.Tensor]:
        """Those of the tensors whose storage belongs to `owner`."""
        entries = ((tensor, self._held.get(storage_key(tensor))) for tensor in tensors)
        return [tensor for tensor, entry in entries if entry is not None and entry.owner == owner]

    def live_of(self, owner: str) -> int:
        """What of an owner is alive."""
        return self._live_of[owner]

    def peak_of(self, name: str, owner: str | None = None) -> int:
        """The most that was alive in a phase: of all, or of one owner. 0 for a phase that never was."""
        return self._phases.get(name, 0) if owner is None else self._peaks_of[name, owner]

    def forget_peaks(self) -> None:
        self._phases.clear()
        self._peaks_of.clear()
        self.peak_bytes = self.live_bytes


class _Held:
    """A storage that is alive."""

    __slots__ = ("owner", "reference", "size")

    def __init__(self, reference: weakref.ref[Any], size: int, owner: str) -> None:
        self.reference = reference
        self.size = size
        self.owner = owner


def storage_key(tensor: torch.Tensor) -> int:
    """Names the storage behind a tensor while it lives, whether it has memory or not."""
    return int(tensor.untyped_storage()._cdata)


def storage_bytes(tensors: Iterable[torch.Tensor]) -> int:
    """Bytes of the distinct storages behind these tensors."""
    return sum({storage_key(tensor): tensor.untyped_storage().nbytes() for tensor in tensors}.values())
