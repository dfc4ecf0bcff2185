"""Traces of one layer type at the points of a basis, fitted into its LayerCosts."""

from __future__ import annotations

import gc
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from vdsgen.profile.fit import Basis
from vdsgen.profile.trace import CheckpointedTrace, Trace
from vdsgen.spec.profile import LayerCosts, Polynomial, Recomputation


def fitted_costs(
    basis: Basis, traces: Sequence[Trace], checkpointed: Sequence[CheckpointedTrace]
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

    def recomputed(name: str) -> Polynomial:
        return basis.polynomial([getattr(trace, f"recomputed_{name}") for trace in checkpointed])

    return LayerCosts(
        saved_bytes=fitted("saved_bytes"),
        output_bytes=fitted("output_bytes"),
        side_bytes=fitted("side_bytes"),
        constant_bytes=if_any("constant_bytes"),
        forward_transient_bytes=basis.peak([_with_zero(trace.forward_temporaries) for trace in traces]),
        backward_transient_bytes=basis.peak([_with_zero(trace.backward_temporaries) for trace in traces]),
        matmul_flops=fitted("matmul_flops"),
        attention_flops=fitted("attention_flops"),
        backward_matmul_flops=unless("backward_matmul_flops", "matmul_flops", 4),
        backward_attention_flops=unless("backward_attention_flops", "attention_flops", 5),
        forward_traffic_bytes=fitted("forward_traffic_bytes"),
        backward_traffic_bytes=fitted("backward_traffic_bytes"),
        checkpointed=Recomputation(
            recomputed_bytes=recomputed("bytes"),
            recomputed_matmul_flops=recomputed("matmul_flops"),
            recomputed_attention_flops=recomputed("attention_flops"),
            recomputed_traffic_bytes=recomputed("traffic_bytes"),
            peak_bytes=basis.peak([_with_zero(trace.moments) for trace in checkpointed]),
        ),
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
