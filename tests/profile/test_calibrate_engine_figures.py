"""From seconds of small steps to what a parameter tensor costs: known costs come out again."""

from __future__ import annotations

import pytest

from vdsgen.profile.calibrate_engine_figures import engine_figures
from vdsgen.profile.calibrate_shapes import engine_layers
from vdsgen.spec.calibration import Calibration, middle

TENSORS = sum(len(layer.parameter_shapes) for layer in engine_layers())
OPERATORS = sum(layer.forward_kernels + layer.backward_kernels for layer in engine_layers())
KERNEL = 1e-5


def seconds(micro_batch: float, step: float, share: float = 1.0) -> dict[int, list[float]]:
    """Of steps with one and three micro-batches, each tensor costing so much."""
    layers = share * OPERATORS * KERNEL
    return {
        count: [count * (layers + share * TENSORS * micro_batch) + share * TENSORS * step] * 4
        for count in (1, 3)
    }


def test_known_costs_come_out_again() -> None:
    samples: dict[str, list[float]] = {}
    for name, one in (
        ("zero-0", seconds(10e-6, 20e-6)),
        ("zero-3", seconds(100e-6, 300e-6)),
        ("gathers", seconds(150e-6, 300e-6)),
    ):
        samples |= {f"engine {name} {count}": values for count, values in one.items()}
    halves = seconds(10e-6, 20e-6, share=0.5)
    samples |= {
        f"engine pipeline {count}": [value + count * 4e-3 for value in values]
        for count, values in halves.items()
    }
    found = Calibration.model_validate(engine_figures(samples, KERNEL))
    assert [rate.zero_stage for rate in found.engine_rates] == [0, 3]
    plain, sharded = found.engine_rates
    assert middle(plain.micro_batch_microseconds) == pytest.approx(10.0, rel=1e-3)
    assert middle(plain.step_microseconds) == pytest.approx(20.0, rel=1e-3)
    assert middle(sharded.micro_batch_microseconds) == pytest.approx(100.0, rel=1e-3)
    assert found.gather_microseconds is not None
    assert middle(found.gather_microseconds) == pytest.approx(50.0, rel=1e-3)
    assert found.pipeline_microseconds is not None
    assert middle(found.pipeline_microseconds) == pytest.approx(4000.0, rel=1e-3)


def test_noise_makes_nothing_negative() -> None:
    samples = {"engine zero-1 1": [5.0, 5.1], "engine zero-1 3": [1.0, 1.2]}
    (rate,) = Calibration.model_validate(engine_figures(samples, KERNEL)).engine_rates
    assert middle(rate.micro_batch_microseconds) == 0.0
