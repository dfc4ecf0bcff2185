"""What one pipeline stage needs of each of its GPUs.

The peak of a step is the larger of two moments that never meet: while micro-batches run (activations and
communication buffers are alive), and while gradients are reduced and the optimizer steps (its workspace
is). Parameters, gradients and optimizer states are there at both. `docs/memory.md` tells the whole model.
"""

from __future__ import annotations

from typing import NamedTuple

from vdsgen.cost.activations import LayerBytes, StageActivations, layer_bytes, stage_activations
from vdsgen.cost.model_states import ModelStates, StageSizes, model_states
from vdsgen.cost.settings import Settings
from vdsgen.spec.architecture import Geometry
from vdsgen.spec.experiment import Dtype
from vdsgen.spec.plan import StageMemory
from vdsgen.spec.profile import ModelProfile

DEVICE_CONTEXT_BYTES = 1_060_000_000
"""Driver context, kernels and a first communicator, which no torch counter shows: what an H100 rank in a
group of 8 held besides torch's memory (NVIDIA/nccl issue 1685). Further communicators of two to four
A100s took 0.5 to 0.7 GB each over NVLink (issue 964), with fewer channels less; they are not added."""
HOST_PROCESS_BYTES = 350_000_000
"""A rank's interpreter with torch 2.13 and DeepSpeed 0.19.8 and an engine built (measured, resident)."""
FRAGMENTATION_FRACTION = 0.065
"""Of the bytes in tensors, what the caching allocator holds besides: reserved over allocated was 1.059 and
1.065 in SimuMax's pipelined Megatron runs on B200 (1.03 without a pipeline; docs/b200,
MooreThreads/SimuMax@4dcaae5). A run of DeepSpeed's PipelineModule on torch of 2021 had 1.06 to 1.20 with a
third of the GPU free (bigscience@9e64ede); the allocator gives cached memory back before it fails."""


class StageBytes(NamedTuple):
    """Bytes on each GPU of one stage, by component: spec/plan.py, StageMemory, says what each is."""

    parameters_bytes: int
    gradients_bytes: int
    optimizer_bytes: int
    activations_bytes: int
    workspace_bytes: int
    communication_bytes: int
    reserve_bytes: int
    peak_bytes: int

    def spec(self) -> StageMemory:
        """As plans hold it."""
        return StageMemory(**self._asdict())


class MemoryModel:
    """Memory of one model's stages; remembers what stages share, so that asking often is cheap."""

    def __init__(self, profile: ModelProfile, geometry: Geometry) -> None:
        self.profile = profile
        self.geometry = geometry
        self._layers: dict[tuple[int, Dtype], tuple[LayerBytes, ...]] = {}
        self._sizes: dict[tuple[int, int], StageSizes] = {}

    def states(self, settings: Settings, start: int, stop: int) -> ModelStates:
        """Raises ValueError for settings that the engine refuses."""
        sizes = self._sizes.get((start, stop))
        if sizes is None:
            sizes = self._sizes[start, stop] = StageSizes.of(self.profile, range(start, stop))
        return model_states(sizes, settings)

    def activations(self, settings: Settings, stage: int, start: int, stop: int) -> StageActivations:
        key = (settings.micro_batch_size, settings.dtype)
        layers = self._layers.get(key)
        if layers is None:
            layers = self._layers[key] = layer_bytes(self.profile, self.geometry, *key)
        return stage_activations(layers, settings, stage, start, stop)

    def tensor_bytes(self, settings: Settings, stage: int, start: int, stop: int) -> int:
        """Peak bytes in tensors: what `torch.cuda.max_memory_allocated` counts."""
        states = self.states(settings, start, stop)
        running = self.activations(settings, stage, start, stop).peak_bytes + states.cast_bytes
        return states.held_bytes + max(running + states.communication_bytes, states.workspace_bytes)

    def stage_memory(
        self,
        settings: Settings,
        stage: int,
        start: int,
        stop: int,
        capacity_bytes: int,
        reserve_fraction: float | None = None,
        *,
        on_host: bool = False,
    ) -> StageBytes:
        """See the function `stage_memory`."""
        states = self.states(settings, start, stop)
        activations = self.activations(settings, stage, start, stop).peak_bytes + states.cast_bytes
        tensors = states.held_bytes + max(activations + states.communication_bytes, states.workspace_bytes)
        reserve = _reserve_bytes(tensors, capacity_bytes, reserve_fraction, on_host)
        return StageBytes(
            parameters_bytes=states.parameters_bytes,
            gradients_bytes=states.gradients_bytes,
            optimizer_bytes=states.optimizer_bytes,
            activations_bytes=activations,
            workspace_bytes=states.workspace_bytes,
            communication_bytes=states.communication_bytes,
            reserve_bytes=reserve,
            peak_bytes=reserve + tensors,
        )


def stage_memory(
    profile: ModelProfile,
    geometry: Geometry,
    settings: Settings,
    stage: int,
    layers: range,
    capacity_bytes: int,
    reserve_fraction: float | None = None,
    *,
    on_host: bool = False,
) -> StageBytes:
    """Bytes by component on each GPU of pipeline stage `stage` that holds the pipeline layers `layers`.

    peak = reserve + parameters + gradients + optimizer
         + max(activations + communication, workspace)

    The reserve is `reserve_fraction` of the capacity where the lab gives one; else the device context (or,
    `on_host`, the process) and the allocator's share. Raises ValueError for settings that the engine
    refuses. Many questions about one model are cheaper to ask of a MemoryModel.
    """
    model = MemoryModel(profile, geometry)
    return model.stage_memory(
        settings, stage, layers.start, layers.stop, capacity_bytes, reserve_fraction, on_host=on_host
    )


def _reserve_bytes(
    tensor_bytes: int, capacity_bytes: int, reserve_fraction: float | None, on_host: bool
) -> int:
    if reserve_fraction is not None:
        return round(reserve_fraction * capacity_bytes)
    context = HOST_PROCESS_BYTES if on_host else DEVICE_CONTEXT_BYTES
    return context + round(FRAGMENTATION_FRACTION * tensor_bytes)
