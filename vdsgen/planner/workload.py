"""What is planned: one experiment on one pool, with its names resolved and its costs at hand."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate

from vdsgen.cost.memory import MemoryModel, OutsideBytes, StageBytes
from vdsgen.cost.rates import peak_rate_tflops
from vdsgen.cost.settings import Settings
from vdsgen.cost.sizes import MeanStepTimeModel
from vdsgen.cost.step import StepTimeModel
from vdsgen.cost.timeline import StageTimeline
from vdsgen.errors import InputError, Problem
from vdsgen.spec.architecture import Geometry, Vdt
from vdsgen.spec.experiment import ClipSize, Dtype, Experiment, geometries_of
from vdsgen.spec.lab import Gpu, Pool
from vdsgen.spec.profile import ModelProfile
from vdsgen.units import GIB

Signature = tuple[object, ...]


@dataclass(frozen=True)
class Workload:
    """One experiment on one pool. Costs are remembered, so that searching asks for each once."""

    experiment: Experiment
    """Its model is a Vdt, not a name."""
    pool: Pool
    """Its GPU and links are figures, not names."""
    gpu_name: str
    profile: ModelProfile

    def __post_init__(self) -> None:
        assert isinstance(self.experiment.model, Vdt), "the model is resolved before plans are made"
        assert isinstance(self.pool.gpu, Gpu), "the GPU is resolved before plans are made"

    @property
    def sizes(self) -> tuple[ClipSize, ...]:
        """What clips are trained at: a step takes one, each as often as the others."""
        return self.experiment.data.sizes

    @cached_property
    def geometries(self) -> tuple[Geometry, ...]:
        """Of `sizes`. Raises InputError where the clips do not fit the model's patches."""
        assert isinstance(self.experiment.model, Vdt)
        try:
            return geometries_of(self.experiment.data, self.experiment.model)
        except ValueError as error:
            raise InputError([Problem(str(error), key="data")]) from error

    @property
    def geometry(self) -> Geometry:
        """Of the first size."""
        return self.geometries[0]

    @cached_property
    def times(self) -> StepTimeModel | MeanStepTimeModel:
        """The mean over all sizes."""
        workers = self.experiment.data.workers
        models = [StepTimeModel(self.profile, geometry, self.pool, workers) for geometry in self.geometries]
        return models[0] if len(models) == 1 else MeanStepTimeModel(models)

    @cached_property
    def is_block(self) -> tuple[bool, ...]:
        return tuple(self.profile.layer_types[name].is_block for name in self.profile.layers)

    @property
    def blocks(self) -> int:
        return sum(self.is_block)

    @property
    def layers(self) -> int:
        return len(self.profile.layers)

    @property
    def ranks_share_host_memory(self) -> bool:
        """Ranks are processes on processors, without memory of their own."""
        assert isinstance(self.pool.gpu, Gpu)
        return self.pool.gpu.memory_gib is None

    @cached_property
    def capacity_bytes(self) -> int:
        """Memory of one rank: its GPU's, or its share of the host's where ranks are processes."""
        assert isinstance(self.pool.gpu, Gpu)
        if self.pool.gpu.memory_gib is not None:
            return int(self.pool.gpu.memory_gib * GIB)
        return int(self.pool.host_memory_gib * GIB) // self.pool.gpus_per_node

    def capacity_of(self, settings: Settings, stage: int) -> int:  # noqa: ARG002
        """Memory of each rank of one pipeline stage: the smallest, where a stage's GPUs differ."""
        return self.capacity_bytes

    def device_classes(self, settings: Settings) -> tuple[int, ...]:
        """For each pipeline stage the number of its kind of GPU: stages of one kind are equally fast and
        equally large."""
        return (0,) * settings.pipeline_parallel_size

    def has_rate(self, dtype: Dtype) -> bool:
        """Whether the pool's GPU computes in this format."""
        assert isinstance(self.pool.gpu, Gpu)
        return peak_rate_tflops(self.pool.gpu, dtype) is not None

    @cached_property
    def _memory_model(self) -> MemoryModel:
        return MemoryModel(self.profile, self.geometries)

    @cached_property
    def _memory(self) -> dict[Signature, StageBytes]:
        return {}

    def memory(self, settings: Settings, stage: int, start: int, stop: int) -> StageBytes:
        """Bytes on each GPU of `stage` holding the layers start to stop - 1: of the size that needs most."""
        key = (settings, stage, self._run(start, stop))
        known = self._memory.get(key)
        if known is None:
            known = self._memory_model.stage_memory(
                settings,
                stage,
                start,
                stop,
                self.capacity_of(settings, stage),
                self.pool.memory_reserve_fraction,
                on_host=self.ranks_share_host_memory,
            )
            self._memory[key] = known
        return known

    def outside(self, settings: Settings, stage: int, start: int, stop: int) -> OutsideBytes:
        """Bytes of each rank of `stage` in host memory and on flash."""
        return self._memory_model.outside_bytes(settings, stage, start, stop)

    def timeline(self, settings: Settings, stage: int, start: int, stop: int) -> StageTimeline:
        """One step of `stage`, moment by moment: of the size that needs most."""
        return self._memory_model.timeline(settings, stage, start, stop)

    def largest_size(self, settings: Settings, stage: int, start: int, stop: int) -> ClipSize:
        """The size that decides `memory`; the first of those that need equally much."""
        peaks = [
            MemoryModel(self.profile, geometry).tensor_bytes(settings, stage, start, stop)
            for geometry in self.geometries
        ]
        return self.sizes[peaks.index(max(peaks))]

    def fits(self, settings: Settings, stage: int, start: int, stop: int) -> bool:
        return self.memory(settings, stage, start, stop).peak_bytes <= self.capacity_of(settings, stage)

    def _run(self, start: int, stop: int) -> Signature:
        """Equal for stretches of layers of the same memory: the same types, handed the same tensors."""
        ends = self._run_ends
        before = None if start == 0 else self.profile.layers[start - 1]
        signature: list[object] = [before, self._side_makers_before[start]]
        position = start
        while position < stop:
            end = min(ends[position], stop)
            signature += (self.profile.layers[position], end - position)
            position = end
        return tuple(signature)

    @cached_property
    def _side_makers_before(self) -> list[int]:
        makes = [bool(self.profile.layer_types[name].half.side_bytes.terms) for name in self.profile.layers]
        return [0, *accumulate(int(make) for make in makes)]

    @cached_property
    def _run_ends(self) -> list[int]:
        """For each layer, one past the last of the equal layers that follow it."""
        names = self.profile.layers
        ends = [0] * len(names)
        for index in range(len(names) - 1, -1, -1):
            same = index + 1 < len(names) and names[index] == names[index + 1]
            ends[index] = ends[index + 1] if same else index + 1
        return ends
