"""A committed profile against a trace at a point that it was not fitted to."""

from __future__ import annotations

from vdsgen.cost.compute import BACKWARD_MATMUL_FACTOR
from vdsgen.cost.rates import BACKWARD_ATTENTION_FACTOR
from vdsgen.profile.points import Point
from vdsgen.profile.trace import CheckpointedTrace, Trace
from vdsgen.spec.profile import LayerCosts, SelectiveRecomputation

PLAIN = (
    "saved_bytes",
    "output_bytes",
    "side_bytes",
    "matmul_flops",
    "attention_flops",
    "forward_traffic_bytes",
    "backward_traffic_bytes",
)
RECOMPUTED = (
    "recomputed_bytes",
    "recomputed_matmul_flops",
    "recomputed_attention_flops",
    "recomputed_traffic_bytes",
)


def differences(
    costs: LayerCosts, trace: Trace, checkpointed: CheckpointedTrace, point: Point
) -> dict[str, tuple[int | float, int | float]]:
    """Field -> (by the profile, traced), of those that are not equal. Costs have no open rank."""
    at = (point.batch, point.geometry)
    inside = costs.checkpointed
    assert inside is not None, "every layer is traced inside a checkpoint too"
    products, scores = costs.backward_matmul_flops, costs.backward_attention_flops
    matmul = products.at(*at) if products else BACKWARD_MATMUL_FACTOR * costs.matmul_flops.at(*at)
    attention = scores.at(*at) if scores else BACKWARD_ATTENTION_FACTOR * costs.attention_flops.at(*at)
    found: dict[str, tuple[int | float, int | float]] = {
        name: (getattr(costs, name).at(*at), getattr(trace, name)) for name in PLAIN
    }
    found |= {name: (getattr(inside, name).at(*at), getattr(checkpointed, name)) for name in RECOMPUTED}
    found |= {
        "backward_matmul_flops": (matmul, trace.backward_matmul_flops),
        "backward_attention_flops": (attention, trace.backward_attention_flops),
        "forward_transient_bytes": (
            costs.forward_transient_bytes.at(*at),
            max(0, *trace.forward_temporaries),
        ),
        "backward_transient_bytes": (
            costs.backward_transient_bytes.at(*at),
            max((0, *trace.backward_temporaries)),
        ),
        "peak_bytes": (inside.peak_bytes.at(*at), max((0, *checkpointed.moments))),
    }
    unsaved = costs.unsaved_input_bytes
    found["unsaved_input_bytes"] = (unsaved.at(*at) if unsaved else 0, trace.unsaved_input_bytes)
    return {name: pair for name, pair in found.items() if pair[0] != pair[1]}


def kept_differences(
    costs: SelectiveRecomputation, trace: CheckpointedTrace, point: Point
) -> dict[str, tuple[int, int]]:
    """The same of a layer that keeps its products."""
    at = (point.batch, point.geometry)
    found = {
        name: (getattr(costs, name).at(*at), getattr(trace, name)) for name in ("saved_bytes", *RECOMPUTED)
    }
    found |= {
        "forward_transient_bytes": (
            costs.forward_transient_bytes.at(*at),
            max((0, *trace.forward_temporaries)),
        ),
        "peak_bytes": (costs.peak_bytes.at(*at), max((0, *trace.moments))),
        "recomputed_kernels": (costs.recomputed_kernels, trace.recomputed_kernels),
    }
    return {name: pair for name, pair in found.items() if pair[0] != pair[1]}
