"""Traces of one layer type at the points of a basis, fitted into its LayerCosts."""

from __future__ import annotations

import gc
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from vdsgen.profile.fit import Basis
from vdsgen.profile.trace import CheckpointedTrace, PackingTrace, Trace
from vdsgen.spec.profile import (
    LayerCosts,
    PackedActivations,
    Polynomial,
    Recomputation,
    SelectiveRecomputation,
)


@dataclass(frozen=True, slots=True)
class KeepingTraces:
    """Of selective recomputation and of packing, one of each kind a point; of packing none where it is not
    asked about."""

    selective: list[CheckpointedTrace]
    selective_packed: list[CheckpointedTrace]
    packing: list[PackingTrace]


def fitted_costs(
    basis: Basis,
    traces: Sequence[Trace],
    checkpointed: Sequence[CheckpointedTrace],
    keeping: KeepingTraces | None = None,
) -> LayerCosts:
    """One trace of each kind a point. Raises NotPolynomialError where a cost is no polynomial."""

    def fitted(name: str) -> Polynomial:
        return basis.polynomial([getattr(trace, name) for trace in traces])

    def unless(name: str, twice: str, halves: int) -> Polynomial | None:
        """None where the field's documented multiple of the forward is right."""
        if all(2 * getattr(x, name) == halves * getattr(x, twice) for x in traces):
            return None
        return fitted(name)

    def if_any(name: str) -> Polynomial | None:
        return fitted(name) if any(getattr(trace, name) for trace in traces) else None

    return LayerCosts(
        saved_bytes=fitted("saved_bytes"),
        output_bytes=fitted("output_bytes"),
        side_bytes=fitted("side_bytes"),
        constant_bytes=if_any("constant_bytes"),
        unsaved_input_bytes=if_any("unsaved_input_bytes"),
        forward_transient_bytes=basis.peak([_with_zero(trace.forward_temporaries) for trace in traces]),
        backward_transient_bytes=basis.peak([_with_zero(trace.backward_temporaries) for trace in traces]),
        matmul_flops=fitted("matmul_flops"),
        attention_flops=fitted("attention_flops"),
        backward_matmul_flops=unless("backward_matmul_flops", "matmul_flops", 4),
        backward_attention_flops=unless("backward_attention_flops", "attention_flops", 5),
        forward_traffic_bytes=fitted("forward_traffic_bytes"),
        backward_traffic_bytes=fitted("backward_traffic_bytes"),
        checkpointed=Recomputation(**_recomputation(basis, checkpointed)),
        selective=_selective(basis, keeping.selective) if keeping else None,
        packed=_packed(basis, keeping) if keeping and keeping.packing else None,
    )


def _recomputation(basis: Basis, traces: Sequence[CheckpointedTrace]) -> dict[str, Any]:
    """Of every kind of recomputation."""
    names = ("bytes", "matmul_flops", "attention_flops", "traffic_bytes")
    found: dict[str, Any] = {
        f"recomputed_{name}": basis.polynomial([getattr(trace, f"recomputed_{name}") for trace in traces])
        for name in names
    }
    return found | {"peak_bytes": basis.peak([_with_zero(trace.moments) for trace in traces])}


def _selective(basis: Basis, traces: Sequence[CheckpointedTrace]) -> SelectiveRecomputation:
    temporaries = [_with_zero(trace.forward_temporaries) for trace in traces]
    return SelectiveRecomputation(
        **_recomputation(basis, traces),
        saved_bytes=basis.polynomial([trace.saved_bytes for trace in traces]),
        forward_transient_bytes=basis.peak(temporaries),
        recomputed_kernels=max(trace.recomputed_kernels for trace in traces),
    )


def _packed(basis: Basis, keeping: KeepingTraces) -> PackedActivations:
    pairs = zip(keeping.selective_packed, keeping.selective, strict=True)
    more = [packed.forward_traffic_bytes - plain.forward_traffic_bytes for packed, plain in pairs]
    return PackedActivations(
        output_bytes=basis.polynomial([one.packed_bytes for one in keeping.packing]),
        packing_traffic_bytes=basis.polynomial([one.packing_traffic_bytes for one in keeping.packing]),
        unpacking_traffic_bytes=basis.polynomial([one.unpacking_traffic_bytes for one in keeping.packing]),
        selective=_selective(basis, keeping.selective_packed),
        selective_packing_traffic_bytes=basis.polynomial(more),
    )


def _with_zero(moments: Sequence[int]) -> tuple[int, ...]:
    """A peak of temporaries is never below none."""
    return (0, *moments)


@contextmanager
def prompt_garbage_collection() -> Iterator[None]:
    """Saved outputs and the graph that saved them are cycles; the command line collects those rarely, and
    the books would count what is only waiting to be collected."""
    thresholds = gc.get_threshold()
    gc.set_threshold(700, 10, 10)
    try:
        yield
    finally:
        gc.set_threshold(*thresholds)
