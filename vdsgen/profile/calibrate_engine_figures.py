"""From seconds of small steps to what the engine costs a parameter tensor."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence

from vdsgen.profile.calibrate_shapes import ENGINE_CASES, ENGINE_MICRO_BATCHES, engine_layers
from vdsgen.spec.calibration import EngineRate, Spread

MICRO = 1e-6


def engine_figures(seconds: Mapping[str, Sequence[float]], kernel_seconds: float) -> dict[str, object]:
    """Figures of a calibration from samples named `engine CASE MICRO-BATCHES`; kernel_seconds is the dispatch
    of one of the layers' operators, which is not the engine's."""
    layers = engine_layers()
    tensors = sum(len(layer.parameter_shapes) for layer in layers)
    dispatch = kernel_seconds * sum(layer.forward_kernels + layer.backward_kernels for layer in layers)
    by_case = {case.name: _split(seconds, case.name) for case in ENGINE_CASES if _known(seconds, case.name)}
    rates = tuple(
        EngineRate(
            zero_stage=case.zero_stage,
            micro_batch_microseconds=_spread([value - dispatch for value in by_case[case.name][0]], tensors),
            step_microseconds=_spread(by_case[case.name][1], tensors),
        )
        for case in ENGINE_CASES
        if case.name in by_case and case.stages == 1 and not case.gathers
    )
    figures: dict[str, object] = {"engine_rates": rates}
    if "gathers" in by_case:
        plain = statistics.median(by_case["zero-3"][0])
        figures["gather_microseconds"] = _spread([value - plain for value in by_case["gathers"][0]], tensors)
    if "pipeline" in by_case:
        # Each of its two stages has half of the layers, and of what they cost without a pipeline.
        half = statistics.median(by_case["zero-0"][0]) / 2
        figures["pipeline_microseconds"] = _spread([value - half for value in by_case["pipeline"][0]], 1)
    return figures


def _known(seconds: Mapping[str, Sequence[float]], case: str) -> bool:
    return f"engine {case} {ENGINE_MICRO_BATCHES[0]}" in seconds


def _split(seconds: Mapping[str, Sequence[float]], case: str) -> tuple[list[float], list[float]]:
    """Seconds of a micro-batch, and of a step's rest: two numbers of micro-batches tell them apart."""
    few, many = ENGINE_MICRO_BATCHES
    short = statistics.median(seconds[f"engine {case} {few}"])
    micro_batches = [(value - short) / (many - few) for value in seconds[f"engine {case} {many}"]]
    middle = statistics.median(micro_batches)
    return micro_batches, [value - few * middle for value in seconds[f"engine {case} {few}"]]


def _spread(values: Sequence[float], parts: int) -> Spread:
    """Microseconds of one part; what noise makes negative is nothing."""
    shares = [max(0.0, value) / parts / MICRO for value in values]
    low, median, high = statistics.quantiles(shares, n=4, method="inclusive")
    low, median, high = (float(f"{value:.4g}") for value in (low, median, high))
    return Spread(median=median, low=low, high=high)
