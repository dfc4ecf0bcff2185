"""The time model gives figures that others published, and no coefficient can be wrong unnoticed."""

from __future__ import annotations

from types import ModuleType

import pytest

from tests.cost.anchors import Anchor, anchors
from vdsgen.cost import communication, compute, efficiency, offload, rates

ANCHORS = list(anchors())


@pytest.mark.parametrize("anchor", ANCHORS, ids=[anchor.name for anchor in ANCHORS])
def test_published_figures_come_out(anchor: Anchor) -> None:
    assert anchor.predicted == pytest.approx(anchor.published, rel=anchor.tolerance)


@pytest.mark.parametrize("factor", [0.6, 1.6])
@pytest.mark.parametrize(
    ("module", "coefficient"),
    [
        (rates, "MATMUL_EFFICIENCY"),
        (rates, "ATTENTION_EFFICIENCY"),
        (rates, "BANDWIDTH_EFFICIENCY"),
        (rates, "KERNEL_SECONDS"),
        (rates, "BACKWARD_ATTENTION_FACTOR"),
        (rates, "GB"),
        (rates, "TERA"),
        (compute, "BACKWARD_MATMUL_FACTOR"),
        (compute, "ADAMW_BYTES"),
        (efficiency, "MATRIX_TILE"),
        (offload, "CPU_ADAM_BYTES"),
        (offload, "HOST_MEMORY_GB_PER_SECOND"),
        (communication, "GB"),
        (communication, "MICROSECONDS"),
    ],
)  # fmt: skip
def test_a_wrong_coefficient_is_noticed(
    module: ModuleType, coefficient: str, factor: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    right = getattr(module, coefficient)
    monkeypatch.setattr(module, coefficient, type(right)(right * factor))
    assert not all(anchor.holds for anchor in anchors())
