"""What one pipeline stage needs of each of its GPUs.

The peak of a step is the largest of a few moments: a forward or a backward beside the micro-batches in
flight, or the workspace of reduction and the optimizer step, when none are. `timeline.py` is the whole step;
`docs/memory.md` tells the whole model.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from vdsgen.cost.activations import StageActivations, stage_activations
from vdsgen.cost.checkpoint_bytes import SavedBytes, saved_bytes
from vdsgen.cost.gradients import GradientGrowth, gradient_growth
from vdsgen.cost.layer_bytes import LayerBytes, layer_bytes, with_reduction
from vdsgen.cost.model_states import model_states
from vdsgen.cost.reduction import momentary_bytes
from vdsgen.cost.settings import Settings
from vdsgen.cost.stage_sizes import StageSizes
from vdsgen.cost.stage_tensors import stage_tensors
from vdsgen.cost.state_bytes import ModelStates
from vdsgen.cost.timeline import StageTimeline
from vdsgen.spec.architecture import Geometry
from vdsgen.spec.dtypes import Dtype
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


class OutsideBytes(NamedTuple):
    """What offload keeps of one rank outside its GPU."""

    host_bytes: int
    nvme_bytes: int


class MemoryModel:
    """Memory of one model's stages; remembers what stages share, so that asking often is cheap.

    Where samples come in several sizes, every figure is of the size that needs most on that stage.
    """

    def __init__(
        self,
        profile: ModelProfile,
        geometries: Geometry | Sequence[Geometry],
        *,
        tensor_parallel_size: int = 1,
    ) -> None:
        """`profile` and `geometries` are one rank's part, where several share blocks or samples."""
        self._parts: dict[tuple[int, int], MemoryModel] = {}
        self.profile = profile
        self.geometries: tuple[Geometry, ...] = (
            (geometries,) if isinstance(geometries, Geometry) else tuple(geometries)
        )
        assert self.geometries, "memory of samples of no size"
        self._shared = (tensor_parallel_size, self.geometries[0].sequence_parallel_size)
        self._layers: dict[tuple[int, Dtype, bool, tuple[int, ...]], list[tuple[LayerBytes, ...]]] = {}
        self._sizes: dict[tuple[int, int], StageSizes] = {}
        types = profile.layer_types
        self._parameters = tuple([types[name].parameters for name in profile.layers])
        self._trainable = tuple([types[name].trainable_parameters for name in profile.layers])
        largest = {
            name: StageSizes.of(profile, range(index, index + 1)).largest_parameter
            for index, name in enumerate(profile.layers)
        }
        self._largest = tuple([largest[name] for name in profile.layers])
        self._all_trainable = profile.trainable_parameters
        self._distinct_largest = tuple(sorted(set(self._largest)))

    def _part(self, settings: Settings) -> MemoryModel:
        """What each rank holds where several share blocks or samples. Raises ValueError for a number that was
        not traced."""
        shared = (settings.tensor_parallel_size, settings.sequence_parallel_size)
        if shared == self._shared:
            return self
        part = self._parts.get(shared)
        if part is None:
            tensor, sequence = shared
            part = self._parts[shared] = MemoryModel(
                self.profile.shared_by(tensor),
                [one._replace(sequence_parallel_size=sequence) for one in self.geometries],
                tensor_parallel_size=tensor,
            )
        return part

    def states(self, settings: Settings, start: int, stop: int) -> ModelStates:
        """Raises ValueError for settings that the engine refuses."""
        if (part := self._part(settings)) is not self:
            return part.states(settings, start, stop)
        sizes = self._sizes.get((start, stop))
        if sizes is None:
            sizes = self._sizes[start, stop] = StageSizes.of(self.profile, range(start, stop))
        return model_states(sizes, settings)

    def saved(self, settings: Settings, start: int, stop: int) -> SavedBytes:
        """What is saved of a stage. Raises ValueError for settings that the engine refuses."""
        if (part := self._part(settings)) is not self:
            return part.saved(settings, start, stop)
        return saved_bytes(StageSizes.of(self.profile, range(start, stop)), settings)

    def activations(self, settings: Settings, stage: int, start: int, stop: int) -> StageActivations:
        """Of the size that needs most."""
        layers = self._fullest(settings, stage, start, stop).layers
        return stage_activations(layers, settings, stage, start, stop)

    def tensor_bytes(self, settings: Settings, stage: int, start: int, stop: int) -> int:
        """Peak bytes in tensors: what `torch.cuda.max_memory_allocated` counts."""
        return self._fullest(settings, stage, start, stop).tensor_bytes

    def plain_tensor_bytes(self, settings: Settings, stage: int, start: int, stop: int) -> int:
        """What `tensor_bytes` is without recomputation: a lower bound, in less time. Rises with the number of
        plain layers where all others are one segment."""
        if (part := self._part(settings)) is not self:
            return part.plain_tensor_bytes(settings, stage, start, stop)
        return max(
            self._of_layers(layers, settings, stage, start, stop, without_recomputation=True).tensor_bytes
            for layers in self._layer_bytes(settings)
        )

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
        found = self._fullest(settings, stage, start, stop)
        states, activations, tensors = found.states, found.activations, found.tensor_bytes
        communication = states.communication_bytes
        if found.growth.bucket_bytes or found.growth.gathered_by_layer:
            # Buckets and gathered weights are part of these, but reported as communication.
            activations = stage_activations(found.layers, settings, stage, start, stop)
            if found.growth.gathered_by_layer:
                communication += found.activations.peak_bytes - activations.peak_bytes
        reserve = reserve_bytes(tensors, capacity_bytes, reserve_fraction, on_host)
        return StageBytes(
            parameters_bytes=states.parameters_bytes,
            gradients_bytes=states.gradients_bytes,
            optimizer_bytes=states.optimizer_bytes,
            activations_bytes=activations.peak_bytes,
            workspace_bytes=activations.idle_bytes + states.workspace_bytes,
            communication_bytes=communication,
            reserve_bytes=reserve,
            peak_bytes=reserve + tensors,
        )

    def outside_bytes(self, settings: Settings, stage: int, start: int, stop: int) -> OutsideBytes:
        """What offload keeps outside the GPU, of the size that needs most."""
        states = self.states(settings, start, stop)
        activations = [
            stage_activations(layers, settings, stage, start, stop).host_bytes
            for layers in self._layer_bytes(settings)
            if settings.offload_activations
        ]
        return OutsideBytes(states.host_bytes + max(activations, default=0), states.nvme_bytes)

    def timeline(self, settings: Settings, stage: int, start: int, stop: int) -> StageTimeline:
        """The step moment by moment, of the size that needs most."""
        found = self._fullest(settings, stage, start, stop)
        tensors = stage_tensors(found.layers, settings, stage, start, stop)
        return StageTimeline(tensors, found.states, found.growth, settings, stage, start)

    def _fullest(self, settings: Settings, stage: int, start: int, stop: int) -> _Stage:
        if (part := self._part(settings)) is not self:
            return part._fullest(settings, stage, start, stop)
        found = [
            self._of_layers(layers, settings, stage, start, stop) for layers in self._layer_bytes(settings)
        ]
        return found[0] if len(found) == 1 else max(found, key=lambda one: one.tensor_bytes)

    def _of_layers(
        self,
        layers: Sequence[LayerBytes],
        settings: Settings,
        stage: int,
        start: int,
        stop: int,
        *,
        without_recomputation: bool = False,
    ) -> _Stage:
        states = self.states(settings, start, stop)
        growth = gradient_growth(states, settings, self._trainable[start:stop], self._parameters[start:stop])
        activations = stage_activations(
            layers,
            settings,
            stage,
            start,
            stop,
            growth=growth,
            without_recomputation=without_recomputation,
        )
        tensors = peak_tensor_bytes(states, growth, activations, settings)
        return _Stage(layers, states, growth, activations, tensors)

    def _layer_bytes(self, settings: Settings) -> list[tuple[LayerBytes, ...]]:
        """Of every size that may need most: those are left out that need no more than another of any layer,
        since every moment's bytes rise with every layer's."""
        moments = tuple(
            [momentary_bytes(settings, largest, self._all_trainable) for largest in self._distinct_largest]
        )
        key = (settings.micro_batch_size, settings.dtype, settings.packs, moments)
        known = self._layers.get(key)
        if known is None:
            by_largest = dict(zip(self._distinct_largest, moments, strict=True))
            momentary = [by_largest[largest] for largest in self._largest]
            found: list[tuple[LayerBytes, ...]] = []
            for geometry in self.geometries:
                layers = layer_bytes(
                    self.profile,
                    geometry,
                    settings.micro_batch_size,
                    settings.dtype,
                    packed=settings.packs,
                )
                layers = with_reduction(layers, momentary)
                if not any(_covers(other, layers) for other in found):
                    found = [other for other in found if not _covers(layers, other)] + [layers]
            known = self._layers[key] = found
        return known


class _Stage(NamedTuple):
    layers: Sequence[LayerBytes]
    states: ModelStates
    growth: GradientGrowth
    activations: StageActivations
    tensor_bytes: int


def _covers(one: Sequence[LayerBytes], other: Sequence[LayerBytes]) -> bool:
    return all(
        a >= b
        for first, second in zip(one, other, strict=True)
        for a, b in zip(first.needs, second.needs, strict=True)
    )


def peak_tensor_bytes(
    states: ModelStates, growth: GradientGrowth, activations: StageActivations, settings: Settings
) -> int:
    """The largest of a step's moments that can be its peak; equal to the timeline's maximum (tested)."""
    moments = peak_moments(states, growth, activations, settings)
    return states.parameters_bytes + states.optimizer_bytes + max(moments)


class PeakMoments(NamedTuple):
    """Bytes besides parameters and optimizer states: gradients, activations, communication, workspace."""

    running_bytes: int
    """The most while micro-batches run."""
    stepping_bytes: int
    """While gradients are reduced after the last backward and the optimizer steps."""


def peak_moments(
    states: ModelStates, growth: GradientGrowth, activations: StageActivations, settings: Settings
) -> PeakMoments:
    """A full pipeline runs on beside all gradients; where no micro-batch follows those in flight, gradients
    come while activations go."""
    stash, in_flight = activations.stash_bytes, activations.in_flight
    micro_batches = settings.gradient_accumulation_steps
    backward = activations.buffer_bytes + growth.always_bytes
    forward = activations.buffer_bytes + (in_flight - 1) * stash + activations.forward_bytes
    goes_on = micro_batches > in_flight
    moments = [
        forward
        + (states.communication_bytes if settings.zero_stage == 3 else 0)
        + (growth.between_bytes if goes_on else growth.before_bytes),
        backward + in_flight * stash + activations.first_backward_bytes + growth.before_bytes,
    ]
    if micro_batches > 1:
        held = in_flight if goes_on else in_flight - 1
        moments.append(backward + held * stash + activations.backward_bytes + growth.between_bytes)
    return PeakMoments(
        running_bytes=max(moments),
        stepping_bytes=activations.idle_bytes + growth.full_bytes + states.workspace_bytes,
    )


def stage_memory(
    profile: ModelProfile,
    geometries: Geometry | Sequence[Geometry],
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

    where the pipeline runs on beside full gradients; less where they come while activations go
    (`peak_tensor_bytes`). The reserve is `reserve_fraction` of the capacity where the lab gives one; else
    the device context (or, `on_host`, the process) and the allocator's share. Raises ValueError for settings
    that the engine refuses. Many questions about one model are cheaper to ask of a MemoryModel.
    """
    model = MemoryModel(profile, geometries)
    return model.stage_memory(
        settings, stage, layers.start, layers.stop, capacity_bytes, reserve_fraction, on_host=on_host
    )


def reserve_bytes(
    tensor_bytes: int, capacity_bytes: int, reserve_fraction: float | None, on_host: bool
) -> int:
    if reserve_fraction is not None:
        return round(reserve_fraction * capacity_bytes)
    context = HOST_PROCESS_BYTES if on_host else DEVICE_CONTEXT_BYTES
    return context + round(FRAGMENTATION_FRACTION * tensor_bytes)
