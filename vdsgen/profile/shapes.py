"""Shapes of a layer's matrix products and attentions, and how many kernels it launches."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch

from vdsgen.model.low_precision.product import QUANTIZED_MM
from vdsgen.profile.fit import Basis, NotPolynomialError
from vdsgen.spec.profile import Attention, Product

aten = torch.ops.aten


class ProductShape(NamedTuple):
    """(rows x depth) times (depth x columns)."""

    rows: int
    columns: int
    depth: int


class AttentionShape(NamedTuple):
    """One attention operator; rows are over all sequences, without heads."""

    flops: int
    query_rows: int
    key_rows: int
    heads: int
    head_size: int


@dataclass(slots=True)
class Shapes:
    """In the order in which the operators ran."""

    products: list[ProductShape] = field(default_factory=list)
    attentions: list[AttentionShape] = field(default_factory=list)
    kernels: int = 0

    def book_product(self, func: Any, args: tuple[Any, ...]) -> None:
        """Counts the operator; keeps its shape where it is a product of two matrices."""
        self.kernels += 1
        operands = {aten.mm: args[:2], QUANTIZED_MM: args[:2], aten.addmm: args[1:3]}.get(func.overloadpacket)
        if operands is not None:
            left, right = operands
            self.products.append(ProductShape(left.shape[0], right.shape[1], left.shape[1]))

    def book_attention(self, query: Sequence[int], key: Sequence[int], flops: int) -> None:
        """Both (N, H, M, K)."""
        self.kernels += 1
        sequences, heads, length, head_size = query
        self.attentions.append(
            AttentionShape(int(flops), sequences * length, sequences * key[2], heads, head_size)
        )


def fitted_products(basis: Basis, traces: Sequence[Sequence[ProductShape]]) -> tuple[Product, ...]:
    """Products as functions of the geometry, one sequence of shapes for each point of the basis.

    Left out are those whose columns or depth depend on the geometry: they are not a layer's weights.
    """
    counts: dict[tuple[str, int, int], Product] = {}
    for shapes in zip(*traces, strict=True):
        columns, depths = {shape.columns for shape in shapes}, {shape.depth for shape in shapes}
        if len(columns) > 1 or len(depths) > 1:
            continue
        try:
            rows = basis.polynomial([shape.rows for shape in shapes])
        except NotPolynomialError:
            continue
        key = (str(rows.terms), *columns, *depths)
        before = counts[key].count if key in counts else 0
        counts[key] = Product(rows=rows, columns=columns.pop(), depth=depths.pop(), count=before + 1)
    return tuple(counts.values())


def fitted_attentions(basis: Basis, traces: Sequence[Sequence[AttentionShape]]) -> tuple[Attention, ...]:
    """Attentions as functions of the geometry, one sequence of shapes for each point of the basis."""
    counts: dict[str, Attention] = {}
    for shapes in zip(*traces, strict=True):
        found = Attention(
            flops=basis.polynomial([shape.flops for shape in shapes]),
            query_rows=basis.polynomial([shape.query_rows for shape in shapes]),
            key_rows=basis.polynomial([shape.key_rows for shape in shapes]),
            heads=shapes[0].heads,
            head_size=shapes[0].head_size,
        )
        key = found.model_dump_json()
        before = counts[key].count if key in counts else 0
        counts[key] = found.model_copy(update={"count": before + 1})
    return tuple(counts.values())
