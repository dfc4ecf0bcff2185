"""What checkpointing keeps, packed into a byte an element until backward: int8, or fp8 (e4m3).

Each block along the last axis, of at most BLOCK elements, has a scale of its own: its largest magnitude over
the largest that the format holds, in the tensor's own dtype. So packed bf16 takes 1 + 2 / 128 bytes an
element for 2, fp32 1 + 4 / 128 for 4. Rounding is to the nearest: the same bits for every layout of ranks.

Packed are the inputs of checkpointed segments and, where layers keep their products (selective.py), these.
Layers that run plainly keep what they keep: keeping their products alone saves as much, and takes less time
than packing does (docs/activations.md). Never packed are parameters, integers, latents (who loaded them holds
them all the while), and attention's log-sums.

The loss of a step does not change: forward computes on what it always has. Gradients do.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

import torch
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks
from torch.nn import functional as F

Format = Literal["int8", "fp8"]

BLOCK = 128
FEWEST_ELEMENTS = 16
"""In a row: below it a scale takes as much as it saves."""
LARGEST: dict[Format, float] = {"int8": 127.0, "fp8": torch.finfo(torch.float8_e4m3fn).max}
DTYPES: dict[Format, torch.dtype] = {"int8": torch.int8, "fp8": torch.float8_e4m3fn}


class Codec:
    """Packs tensors in one format."""

    def __init__(self, kind: Format) -> None:
        self.kind = kind
        self._packs_next = False

    def pack(self, tensor: Tensor) -> Packed | Tensor:
        """The tensor itself where packing would not pay."""
        if not tensor.is_floating_point() or tensor.element_size() == 1 or tensor.dim() < 2:
            return tensor
        rows, order = _rows_in_memory(tensor)
        return tensor if rows.shape[-1] < FEWEST_ELEMENTS else Packed(rows, order, tensor, self.kind)

    @contextmanager
    def first_tensor(self) -> Iterator[None]:
        """Around checkpointing one segment: packs its first tensor argument, the hidden state. The others are
        small, and all segments share them; what runs inside has checkpointing's own hooks."""
        self._packs_next = True
        with saved_tensors_hooks(self._pack_first, _unpacked):
            yield

    def _pack_first(self, tensor: Tensor) -> Packed | Tensor:
        """Before a segment's arguments earlier torch (2.11) saves an empty tensor of its own."""
        if not self._packs_next or not tensor.numel():
            return tensor
        self._packs_next = False
        return self.pack(tensor)


class Packed:
    """One tensor, a byte an element."""

    __slots__ = ("_columns", "_order", "_scales", "_shape", "_values")

    def __init__(self, rows: Tensor, order: tuple[int, ...], tensor: Tensor, kind: Format) -> None:
        self._shape = tuple(tensor.shape)
        self._order = order
        self._columns = rows.shape[-1]
        blocks = _in_blocks(rows)
        largest = torch.linalg.vector_norm(blocks, torch.inf, dim=-1, keepdim=True)
        # A block of zeros has no scale: any other number gives it back.
        self._scales = (largest / LARGEST[kind]).clamp_min_(torch.finfo(rows.dtype).tiny)
        scaled = blocks / self._scales
        if kind == "int8":
            scaled.round_()
        # Rounded up to the dtype, a scale may leave the largest a little beyond what the kind holds.
        scaled.clamp_(-LARGEST[kind], LARGEST[kind])
        self._values = scaled.to(DTYPES[kind])

    def unpacked(self) -> Tensor:
        """A new tensor, laid out as the one that was packed."""
        blocks = self._values.to(self._scales.dtype).mul_(self._scales)
        rows: Tensor = blocks.flatten(-2)[..., : self._columns].contiguous()
        ordered = rows.reshape([self._shape[axis] for axis in self._order])
        back = sorted(range(len(self._order)), key=lambda place: self._order[place])
        return ordered.permute(back)

    @property
    def nbytes(self) -> int:
        return int(self._values.nbytes + self._scales.nbytes)


def _unpacked(kept: Packed | Tensor) -> Tensor:
    return kept.unpacked() if isinstance(kept, Packed) else kept


def _rows_in_memory(tensor: Tensor) -> tuple[Tensor, tuple[int, ...]]:
    """(rows, columns), a view where the tensor's elements lie together, and its axes in the order of memory.
    Attention's results are (N, H, M, K) that lie as (N, M, H, K): their rows are all heads."""
    strides = tensor.stride()
    order = tuple(sorted(range(tensor.dim()), key=lambda axis: (-strides[axis], axis)))
    ordered = tensor.permute(order)
    if order == tuple(range(tensor.dim())):
        return ordered.reshape(-1, ordered.shape[-1]), order
    return ordered.flatten(-2).flatten(0, -2), order


def _in_blocks(rows: Tensor) -> Tensor:
    """(rows, blocks, elements of each): equal blocks of at most BLOCK, as few as there can be. Where those
    would have hardly any elements, the last block is filled up with zeros."""
    columns = rows.shape[-1]
    blocks = -(-columns // BLOCK)
    most = columns // FEWEST_ELEMENTS
    equal = next((count for count in range(blocks, most + 1) if columns % count == 0), None)
    if equal is not None:
        return rows.reshape(-1, equal, columns // equal)
    return F.pad(rows, (0, -columns % BLOCK)).view(rows.shape[0], -1, BLOCK)
