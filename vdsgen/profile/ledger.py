"""Keeps the books while a layer runs: what is alive after each operator, and what the operator cost."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry, sdpa_flop_count

from vdsgen.profile.kernels import attention_of, hidden_temporary_bytes
from vdsgen.profile.shapes import Shapes
from vdsgen.spec.profile import AttentionKernel

aten = torch.ops.aten
_NO_TRAFFIC = frozenset(
    {aten.empty, aten.empty_like, aten.empty_strided, aten.new_empty, aten.empty_permuted}
)


@dataclass(frozen=True, slots=True)
class Entry:
    """One phase (forward or backward) of one layer."""

    moments: tuple[int, ...]
    """Bytes alive at each operator, its own temporaries included."""
    end: int
    """Bytes alive after the phase."""
    matmul_flops: int
    attention_flops: int
    traffic_bytes: int
    shapes: Shapes
    kernels: int
    """Operators so far that launch one."""


class Ledger(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts storages born while it is active; those of `known` tensors never count.

    Works on real, fake and meta tensors alike: each has a storage of the true size that dies in time.
    `kernel` is what attention runs: its hidden workspace, and whose batched products are attention's.
    """

    def __init__(self, known: Iterable[Tensor], kernel: AttentionKernel = "flash") -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._kernel = kernel
        self._known = {key_of(tensor) for tensor in known}
        self._live: dict[int, tuple[StorageWeakRef, int]] = {}
        self._noting = False
        self.noted: Entry | None = None
        self._reset()

    def _reset(self) -> None:
        self._moments: list[int] = []
        self._matmul_flops = 0
        self._attention_flops = 0
        self._traffic_bytes = 0
        self._shapes = Shapes()

    def alive(self) -> int:
        """Bytes of counted storages that still live."""
        dead = [key for key, (reference, _) in self._live.items() if reference.expired()]  # type: ignore[no-untyped-call]
        for key in dead:
            del self._live[key]
        return sum(size for _, size in self._live.values())

    def count(self, tensor: Tensor) -> None:
        """Counts a tensor's storage from now on, unless it is known or counted already."""
        key = key_of(tensor)
        if key not in self._known and key not in self._live:
            storage = tensor.untyped_storage()
            self._live[key] = (StorageWeakRef(storage), storage.nbytes())  # type: ignore[no-untyped-call]

    def note_next(self) -> None:
        """Keeps what is alive, and what was spent in this phase, just before the next operator runs."""
        self._noting = True

    def close_phase(self) -> Entry:
        """The books since the last call; opens the next phase."""
        entry = self.entry()
        self._reset()
        return entry

    def entry(self) -> Entry:
        """The books since the last call of `close_phase`, as they stand."""
        return Entry(
            moments=tuple(self._moments),
            end=self.alive(),
            matmul_flops=self._matmul_flops,
            attention_flops=self._attention_flops,
            traffic_bytes=self._traffic_bytes,
            shapes=self._shapes,
            kernels=self._shapes.kernels,
        )

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func is torch.ops.prim.device.default:  # two of three calls: fake tensors ask for their device
            return func(*args)
        if self._noting:
            self.noted, self._noting = self.entry(), False
        with torch._C.DisableTorchFunction():  # inside an operator, no mode may change what it calls
            result = func(*args, **kwargs)
        outputs = [leaf for leaf in tree_leaves(result) if isinstance(leaf, Tensor)]
        if not outputs:
            return result
        read = {name: value for name, value in kwargs.items() if name != "out"}
        inputs = [leaf for leaf in tree_leaves((args, read)) if isinstance(leaf, Tensor)]
        for tensor in outputs:
            self.count(tensor)
        hidden = hidden_temporary_bytes(func, args, kwargs, self._kernel)
        self._moments.append(self.alive() + hidden)
        self._book_work(func, args, kwargs, result, inputs, outputs)
        self._traffic_bytes += 2 * hidden  # written once, read once
        return result

    def _book_work(
        self,
        func: Any,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        result: Any,
        inputs: list[Tensor],
        outputs: list[Tensor],
    ) -> None:
        attention = attention_of(func)
        if attention is not None:
            query, key, value = args[attention.query], args[attention.query + 1], args[attention.query + 2]
            shapes = (query.shape, key.shape, value.shape)
            forward = sdpa_flop_count(*shapes)  # type: ignore[no-untyped-call]
            self._attention_flops += int(forward * attention.forward_equivalents)
            self._shapes.book_attention(query.shape, key.shape, forward)
        elif func.overloadpacket in flop_registry:
            formula = flop_registry[func.overloadpacket]
            flops = int(formula(*args, **kwargs, out_val=result))
            if self._kernel != "math" or func.overloadpacket is not aten.bmm:
                self._matmul_flops += flops
                self._shapes.book_product(func, args)
                return
            self._attention_flops += flops  # and the scores are read and written
        if func.overloadpacket in _NO_TRAFFIC or _is_view(func, inputs, outputs):
            return
        if attention is None:
            self._shapes.kernels += 1
        self._traffic_bytes += sum(_touched_bytes(tensor) for tensor in [*inputs, *outputs])


def key_of(tensor: Tensor) -> int:
    """Identity of a tensor's storage while it lives."""
    return int(tensor.untyped_storage()._cdata)


def _is_view(func: Any, inputs: list[Tensor], outputs: list[Tensor]) -> bool:
    """All outputs share an input's storage, and nothing was written."""
    if func._schema.is_mutable:
        return False
    known = {key_of(tensor) for tensor in inputs}
    return all(key_of(tensor) in known for tensor in outputs)


def _touched_bytes(tensor: Tensor) -> int:
    """Bytes that reading a tensor once moves; a broadcast dimension (stride 0) moves nothing more."""
    sizes = zip(tensor.shape, tensor.stride(), strict=True)
    return math.prod(size for size, stride in sizes if stride != 0) * tensor.element_size()
