"""What the parts of a step are called."""

from __future__ import annotations

PARTS = {
    "compute_seconds": "computing forward and backward",
    "recompute_seconds": "recomputation",
    "bubble_seconds": "the pipeline's bubble",
    "tensor_seconds": "exchange between tensor ranks",
    "sequence_seconds": "exchange between sequence ranks",
    "transfer_seconds": "transfers between stages",
    "reduction_seconds": "reducing gradients",
    "gather_seconds": "gathering parameters",
    "optimizer_seconds": "the optimizer",
    "offload_seconds": "offload traffic",
    "data_seconds": "waiting for data",
    "overhead_seconds": "fixed overhead",
}
"""The parts of a step, in words."""
