"""Whether tensor-parallel ranks should share the temporal convolution's channels: what the cost model says.

    python -m tests.benchmarks.shared_convolution

Sharing costs an all-reduce of the hidden state forward and a gather backward; it saves each rank a part of
the pointwise product, forward and twice backward, and of the depthwise kernel's passes over memory. The table
of docs/model.md; nothing is measured.
"""

from __future__ import annotations

from tests.cost.anchors import box
from tests.cost.test_communication import settings
from vdsgen.catalog.load import models
from vdsgen.cost.communication import Topology
from vdsgen.cost.rates import Rates

TOKENS = 16 * 1024
PASSES = 25
"""Reads and writes of the hidden state by the depthwise kernel of three taps: 8 forward, 17 backward."""
POOLS = (("a100-80gb-sxm", "nvlink-3"), ("h100-80gb-sxm", "nvlink-4"), ("rtx-4090", "pcie-4.0-x16"))


def main() -> None:
    """Prints the table."""
    print("| GPUs | model | ranks | exchange, ms | product saved, ms | passes saved, ms |")
    print("|---|---|---|---|---|---|")
    for gpu, link in POOLS:
        on = box(gpu, 8, link)
        rates = Rates.of(on, "bf16")
        for name in ("vdt-2.1b", "vdt-14b"):
            hidden = models()[name].sizes.hidden_size
            for ranks in (2, 8):
                exchange = _exchange_seconds(Topology.of(on), ranks, hidden)
                product = _product_seconds(rates, hidden, hidden) - _product_seconds(
                    rates, hidden, hidden // ranks
                )
                passes = PASSES * 2 * TOKENS * (hidden - hidden // ranks) / rates.bytes_per_second
                figures = " | ".join(f"{1e3 * seconds:.2f}" for seconds in (exchange, product, passes))
                print(f"| {gpu}, {link} | {name} | {ranks} | {figures} |")


def _exchange_seconds(topology: Topology, ranks: int, hidden: int) -> float:
    path = topology.tensor_group(settings(1, 1, tensor_parallel_size=ranks))
    return sum(path.ring_seconds(ranks, 2.0 * TOKENS * hidden, passes=passes) for passes in (2, 1))


def _product_seconds(rates: Rates, hidden: int, depth: int) -> float:
    """Forward and backward of (TOKENS x depth) times (depth x hidden)."""
    shapes = ((TOKENS, hidden, depth), (TOKENS, depth, hidden), (depth, hidden, TOKENS))
    return sum(rates.product_seconds(*shape, 2) for shape in shapes)


if __name__ == "__main__":
    main()
