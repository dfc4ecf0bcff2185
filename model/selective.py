"""Recomputation of what is cheap: outputs of matrix products and attention are kept, all else runs once more.

A block's norms, modulation, activation functions, rotations and sums take a small share of its time and hold
most of what it keeps for backward (arXiv 2205.05198, section 4.2, says it of attention's scores). So a layer
run inside torch's non-reentrant checkpoint keeps its input and what its products put out; when backward comes
to it, its forward runs again, and every product is answered with what it gave the first time.

torch's own modes for that (torch.utils.checkpoint.create_selective_checkpoint_contexts) refuse products that
are changed in place afterwards, or would change them twice. Here they are: tensor-parallel ranks add up their
partial products in place, and so does ZeRO-3's linear with its bias (deepspeed/runtime/zero/linear.py:94).
What is kept is then the sum, and neither the addition nor its message is repeated. And here what is kept can
be packed (activation_compression.py).
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map_only

from vdsgen.model.activation_compression import Codec, Packed
from vdsgen.model.low_precision.product import QUANTIZED_MM

aten = torch.ops.aten
PRODUCTS = frozenset(
    {
        aten.mm,
        aten.addmm,
        aten.convolution,
        aten._scaled_dot_product_cudnn_attention,
        aten._scaled_dot_product_efficient_attention,
        aten._scaled_dot_product_flash_attention,
        aten._scaled_dot_product_flash_attention_for_cpu,
        aten._scaled_dot_product_fused_attention_overrideable,
        QUANTIZED_MM,
    }
)
"""What is kept. Batched products (bmm) are not: attention's scores, which are as many as its positions
squared, are made of them where no fused kernel runs."""

_thread = threading.local()


def is_replaying() -> bool:
    """Whether this thread runs a forward once more whose products are answered with what was kept: a message
    between ranks that completed one is not to be sent again."""
    return getattr(_thread, "replays", 0) > 0


class KeptProducts:
    """What one run of a segment keeps, from its forward to its backward; packed, with a codec."""

    def __init__(self, codec: Codec | None = None) -> None:
        self.codec = codec
        self.entries: deque[Entry] = deque()
        """In the order in which they were made, and will be asked for."""

    def contexts(self) -> tuple[AbstractContextManager[Any], AbstractContextManager[Any]]:
        """Around forward and around recomputation: `context_fn` of torch.utils.checkpoint.checkpoint."""
        return _Recording(self), _Replaying(self)


class Entry:
    """What one operator gave, or did."""

    __slots__ = ("again", "func", "result")

    def __init__(self, func: Any, result: Any = None) -> None:
        self.func = func
        self.result: Any = tree_map_only(Tensor, Tensor.detach, result)
        """Detached: the operator's own tensors are about to get a graph. None of one that changed a product
        in place: its answer is what it would change."""
        self.again = False
        """It runs once more."""

    def drop(self) -> None:
        self.result, self.again = None, True

    def pack(self, codec: Codec) -> None:
        """Of a product's results the first, which holds by far the most."""
        if isinstance(self.result, Tensor):
            self.result = codec.pack(self.result)
        elif isinstance(self.result, tuple):
            self.result = (codec.pack(self.result[0]), *self.result[1:])

    def answer(self, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if self.again:
            return func(*args, **kwargs)
        if self.result is None:
            return next(_written(func, args, kwargs))
        if isinstance(self.result, tuple):
            first, *others = self.result
            return (first.unpacked() if isinstance(first, Packed) else first, *others)
        return self.result.unpacked() if isinstance(self.result, Packed) else self.result


class _Recording(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Keeps what products put out, and what is changed in place right after."""

    def __init__(self, kept: KeptProducts) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._kept = kept
        self._by_storage: dict[int, list[Entry]] = {}
        self._fresh: frozenset[int] = frozenset()
        """Storages of the last product, while nothing has read it."""

    def __exit__(self, *exception: Any) -> None:
        super().__exit__(*exception)  # type: ignore[no-untyped-call]
        self._by_storage.clear()
        if self._kept.codec is not None:
            for entry in self._kept.entries:
                entry.pack(self._kept.codec)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if func.overloadpacket in PRODUCTS:
            entry = self._keep(Entry(func, result))
            self._fresh = frozenset(_storages(entry.result))
            for storage in self._fresh:
                self._by_storage[storage] = [entry]
        elif func._schema.is_mutable:
            self._changed(func, args, kwargs or {})
        elif func.namespace == "aten" and not self._fresh.issuperset(_storages(result)):
            self._fresh = frozenset()  # something may have read it, and is no view of it
        return result

    def _keep(self, entry: Entry) -> Entry:
        self._kept.entries.append(entry)
        return entry

    def _changed(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """A product that is changed before anything reads it is kept as it is then. One that was read before
        is not kept after all: both values are needed."""
        changed = set(_storages(list(_written(func, args, kwargs)))) & self._by_storage.keys()
        if not changed:
            self._fresh = frozenset()
        elif changed <= self._fresh and len(func._schema.returns) == 1:
            entry = self._keep(Entry(func))
            for storage in changed:
                self._by_storage[storage].append(entry)
        else:
            for storage in changed:
                for entry in self._by_storage.pop(storage):
                    entry.drop()


class _Replaying(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Answers operators with what was kept of them."""

    def __init__(self, kept: KeptProducts) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._kept = kept

    def __enter__(self) -> _Replaying:
        _thread.replays = getattr(_thread, "replays", 0) + 1
        super().__enter__()  # type: ignore[no-untyped-call]
        return self

    def __exit__(self, *exception: Any) -> None:
        super().__exit__(*exception)  # type: ignore[no-untyped-call]
        _thread.replays -= 1
        self._kept.entries.clear()  # recomputation ends early: what backward does not need is not asked for

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        entries = self._kept.entries
        if entries and entries[0].func is func:
            return entries.popleft().answer(func, args, kwargs or {})
        assert func.overloadpacket not in PRODUCTS, f"{func} was not run the first time: layers must repeat"
        return func(*args, **(kwargs or {}))


def _storages(tensors: Any) -> Iterator[int]:
    for tensor in tree_leaves(tensors):
        if isinstance(tensor, Tensor):
            yield int(tensor.untyped_storage()._cdata)


def _written(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Iterator[Any]:
    for place, argument in enumerate(func._schema.arguments):
        if argument.alias_info is not None and argument.alias_info.is_write:
            yield args[place] if place < len(args) else kwargs.get(argument.name)
