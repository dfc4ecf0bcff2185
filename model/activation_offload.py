"""What checkpointing keeps waits for backward in host memory.

Checkpointing keeps each segment's input. Of that, the hidden state goes: the other tensors of an input are
small, and all segments share them. Copies run on a stream of their own, both ways in turn:

* down while the segment's forward runs, which needs the hidden state on the device anyway. The next segment
  waits for it, so that never more than one copy keeps memory from being freed.
* up one segment ahead of backward: while a segment is recomputed, the one before it is fetched. So the last
  segment's alone is waited for, and backward holds one hidden state more than what it works on.

vdsgen/cost/stage_tensors.py counts these bytes, vdsgen/cost/offload.py this traffic. On a processor the same
copies are made at once, from memory to memory.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks


class ActivationOffload:
    """Of one rank's part of the model; its host memory serves all micro-batches in turn."""

    def __init__(self) -> None:
        self.buffers = HostBuffers()
        self._copies: Copies | None = None
        self._leaving: tuple[Tensor, Any] | None = None
        """The hidden state that is being copied, held until it is down, and the event that says so."""
        self._newest: Kept | None = None
        self._packs_hidden = False

    @contextmanager
    def forward(self) -> Iterator[None]:
        """Around all segments of one micro-batch. Afterwards nothing offloaded is on the device."""
        self._newest = None
        try:
            yield
        finally:
            self._settle()
            self._newest = None

    @contextmanager
    def segment(self) -> Iterator[None]:
        """Around checkpointing one segment, whose first tensor argument is the hidden state that leaves: kept
        for its recomputation, whether it needs a gradient or lies behind frozen layers."""
        self._packs_hidden = True
        with saved_tensors_hooks(self._pack, self._unpack):
            yield

    def _pack(self, tensor: Tensor) -> Tensor | Kept:
        """Called with each tensor of a segment's input, in order; what runs inside has checkpointing's own
        hooks. Before them earlier torch (2.11) saves an empty tensor of its own."""
        if not self._packs_hidden or not tensor.numel():
            return tensor
        self._packs_hidden = False
        self._settle()
        if self._copies is None:
            self._copies = Copies(tensor.device)
        buffer = self.buffers.take(bytes_of(tensor), page_locked=tensor.device.type != "cpu")
        kept = Kept(tensor, buffer, self._newest)
        self._leaving = (tensor, self._copies.start(kept.on_host, tensor))
        self._newest = kept
        return kept

    def _settle(self) -> None:
        """Work from here on comes after the copy that is under way, and may use its source's memory."""
        if self._leaving is not None:
            assert self._copies is not None
            self._copies.wait(self._leaving[1])
            self._leaving = None

    def _unpack(self, kept: Tensor | Kept) -> Tensor:
        """The hidden state on the device; begins to fetch the one before it."""
        if isinstance(kept, Tensor):
            return kept
        assert self._copies is not None
        self._fetch(kept)
        tensor, before = kept.on_device, kept.before
        assert tensor is not None
        self._copies.wait(kept.up)
        # The buffer's next use is a copy on the same stream: it comes after this one.
        self.buffers.give(kept.buffer)
        kept.on_device = kept.before = None
        if before is not None:
            self._fetch(before)
        return tensor

    def _fetch(self, kept: Kept) -> None:
        if kept.on_device is None:
            assert self._copies is not None
            kept.on_device = kept.room()
            kept.up = self._copies.start(kept.on_device, kept.on_host)


class Kept:
    """One hidden state in host memory, and on the device again once it was asked for."""

    __slots__ = ("_device", "_stride", "before", "buffer", "on_device", "on_host", "up")

    def __init__(self, tensor: Tensor, buffer: Tensor, before: Kept | None) -> None:
        self._device = tensor.device
        self._stride = tensor.stride()
        self.buffer = buffer
        self.on_host = buffer[: bytes_of(tensor)].view(tensor.dtype).view(tensor.shape)
        self.before = before
        """The segment's before it: backward needs it next."""
        self.on_device: Tensor | None = None
        self.up: Any = None
        """The event of the copy to the device."""

    def room(self) -> Tensor:
        """Memory on the device, laid out as the tensor was."""
        host = self.on_host
        return torch.empty_strided(host.shape, self._stride, dtype=host.dtype, device=self._device)


def bytes_of(tensor: Tensor) -> int:
    return tensor.numel() * tensor.element_size()


class HostBuffers:
    """Host memory that is used again and again, since locking pages takes long."""

    def __init__(self) -> None:
        self._free: list[Tensor] = []
        self.allocated_bytes = 0

    def take(self, size_bytes: int, *, page_locked: bool) -> Tensor:
        """At least so many bytes. Of free buffers that are all too small, one makes room for it."""
        place = next((i for i, buffer in enumerate(self._free) if buffer.numel() >= size_bytes), None)
        if place is not None:
            return self._free.pop(place)
        if self._free:
            self.allocated_bytes -= self._free.pop().numel()
        self.allocated_bytes += size_bytes
        return torch.empty(size_bytes, dtype=torch.uint8, pin_memory=page_locked)

    def give(self, buffer: Tensor) -> None:
        """Takes back what `take` gave."""
        self._free.append(buffer)


class Copies:
    """Between a device and its host, on a stream of their own; at once where the device is a processor."""

    def __init__(self, device: torch.device) -> None:
        self._streams = None if device.type == "cpu" else torch.get_device_module(device)
        self._stream = None if self._streams is None else self._streams.Stream(device)

    def start(self, target: Tensor, source: Tensor) -> Any:
        """After all that is queued so far; returns an event for `wait`."""
        if self._streams is None or self._stream is None:
            target.copy_(source)
            return None
        self._stream.wait_stream(self._streams.current_stream())
        with self._streams.stream(self._stream):
            target.copy_(source, non_blocking=True)
        return self._stream.record_event()

    def wait(self, event: Any) -> None:
        """What is queued from now on comes after the copy."""
        if self._streams is not None:
            self._streams.current_stream().wait_event(event)
