"""AdamW's moments in int8 (model/adamw_8bit.py) in the place of fp32 ones. Legend as in model_states.py."""

from __future__ import annotations

from vdsgen.cost.averages import averaged_elements
from vdsgen.cost.engine_optimizer import EngineOptimizer
from vdsgen.cost.settings import Settings
from vdsgen.cost.stage_sizes import StageSizes
from vdsgen.cost.state_bytes import ModelStates
from vdsgen.spec.quantized_moments import moment_bytes, work_bytes

EXACT_MOMENTS = 8
"""Bytes an element that the states are counted with: two fp32 moments."""


def with_moments(
    states: ModelStates, sizes: StageSizes, settings: Settings, optimizer: EngineOptimizer
) -> ModelStates:
    """The states with moments in int8, and beside them what one piece takes while it is stepped.

    Without ZeRO every tensor has codes and scales of its own, and small ones stay in fp32; with it the share
    is one tensor (ZeRO-3: one a sub-group, which is left out)."""
    if not settings.int8_moments:
        return states
    elements = averaged_elements(sizes, settings, optimizer)
    if optimizer in ("AdamW", "FP16_UnfusedOptimizer"):
        moments = sum(moment_bytes(numel) * count for numel, count in sizes.counts)
        largest = sizes.largest_parameter
    else:
        moments, largest = moment_bytes(elements), elements
    return states._replace(
        optimizer_bytes=states.optimizer_bytes - EXACT_MOMENTS * elements + moments,
        step_bytes=states.step_bytes + work_bytes(largest),
    )
