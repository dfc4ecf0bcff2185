"""What one pipeline stage needs of each of its GPUs."""

from __future__ import annotations

from vdsgen.cost.activations import activation_bytes, layer_bytes
from vdsgen.cost.model_states import StageSizes, model_states
from vdsgen.cost.settings import Settings
from vdsgen.spec.architecture import Geometry
from vdsgen.spec.plan import StageMemory
from vdsgen.spec.profile import ModelProfile

DEFAULT_RESERVE_FRACTION = 0.08
"""Device context, communicator buffers and allocator fragmentation, where the lab gives no figure."""


def stage_memory(
    profile: ModelProfile,
    geometry: Geometry,
    settings: Settings,
    stage: int,
    layers: range,
    capacity_bytes: int,
    reserve_fraction: float | None = None,
) -> StageMemory:
    """Bytes by component on each GPU of pipeline stage `stage` holding the pipeline layers `layers`."""
    states = model_states(StageSizes.of(profile, layers), settings)
    activations = activation_bytes(layer_bytes(profile, geometry, settings), stage, layers, settings)
    fraction = DEFAULT_RESERVE_FRACTION if reserve_fraction is None else reserve_fraction
    reserve = round(fraction * capacity_bytes)
    activations += states.fresh_gradient_bytes
    during = activations + states.communication_bytes
    return StageMemory(
        parameters_bytes=states.parameters_bytes,
        gradients_bytes=states.gradients_bytes,
        optimizer_bytes=states.optimizer_bytes,
        activations_bytes=activations,
        workspace_bytes=states.workspace_bytes,
        communication_bytes=states.communication_bytes,
        reserve_bytes=reserve,
        peak_bytes=reserve + states.held_bytes + max(during, states.workspace_bytes),
    )
