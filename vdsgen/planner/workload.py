"""What is planned: one experiment on one pool, with its names resolved and its costs at hand."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate

from vdsgen.cost.checkpoint_bytes import SavedBytes
from vdsgen.cost.compute import costs_of
from vdsgen.cost.devices import Devices
from vdsgen.cost.eight_bit import How, emulated_in, with_eight_bit_linears
from vdsgen.cost.memory import MemoryModel, OutsideBytes, StageBytes, reserve_bytes
from vdsgen.cost.rates import eight_bit_speedups, peak_rate_tflops
from vdsgen.cost.settings import Settings
from vdsgen.cost.sizes import MeanStepTimeModel
from vdsgen.cost.step import StepTimeModel
from vdsgen.cost.timeline import StageTimeline
from vdsgen.errors import InputError, Problem
from vdsgen.spec.architecture import Geometry, Vdt
from vdsgen.spec.data import ClipSize
from vdsgen.spec.diffusers_model import DiffusersModel
from vdsgen.spec.dtypes import Dtype
from vdsgen.spec.experiment import Experiment
from vdsgen.spec.geometry import geometries_of
from vdsgen.spec.lab import Gpu, Pool
from vdsgen.spec.linear_precision import EightBit
from vdsgen.spec.profile import ModelProfile
from vdsgen.units import GIB

Signature = tuple[object, ...]


@dataclass(frozen=True)
class Workload:
    """One experiment on one pool. Costs are remembered, so that searching asks for each once."""

    experiment: Experiment
    """Its model is resolved, not a name."""
    pool: Pool
    """Its GPU and links are figures, not names."""
    gpu_name: str
    """Of several kinds: all their names."""
    profile: ModelProfile
    kind_names: tuple[str, ...] = ()
    """Of each kind in `devices`, where there are several."""

    def __post_init__(self) -> None:
        assert isinstance(self.experiment.model, Vdt | DiffusersModel), "the model is resolved before"
        assert isinstance(self.pool.gpu, Gpu), "the GPU is resolved before plans are made"

    @property
    def sizes(self) -> tuple[ClipSize, ...]:
        """What clips are trained at: a step takes one, each as often as the others."""
        return self.experiment.data.sizes

    @cached_property
    def geometries(self) -> tuple[Geometry, ...]:
        """Of `sizes`. Raises InputError where the clips do not fit the model's patches."""
        assert isinstance(self.experiment.model, Vdt | DiffusersModel)
        try:
            return geometries_of(self.experiment.data, self.experiment.model)
        except ValueError as error:
            raise InputError([Problem(str(error), key="data")]) from error

    @property
    def geometry(self) -> Geometry:
        """Of the first size."""
        return self.geometries[0]

    @cached_property
    def costed(self) -> ModelProfile:
        """The profile, with what training in 8 bits changes of it."""
        kind = self.experiment.training.linear_precision
        if kind == "exact":
            return self.profile
        return with_eight_bit_linears(self.profile, How(kind, self._emulated_in(kind)))

    @property
    def has_eight_bit_products(self) -> bool:
        """Whether any block has a product that is in 8 bits."""
        return self.costed.layer_types != self.profile.layer_types

    def multiplies_in(self, kind: EightBit, dtype: Dtype) -> bool:
        """Whether every kind of the pool's GPUs has products of this format, for a model of this dtype."""
        return all(kind in eight_bit_speedups(gpu, dtype) for gpu in self._gpus)

    def _emulated_in(self, kind: EightBit) -> dict[str, int | None]:
        """Of half and single precision."""
        in_bf16 = self.experiment.training.precision in ("auto", "bf16") and self.has_rate("bf16")
        half: Dtype = "bf16" if in_bf16 else "fp16"
        return {
            "half": emulated_in(kind, half, self._gpus),
            "single": emulated_in(kind, "fp32", self._gpus),
        }

    @cached_property
    def _gpus(self) -> list[Gpu]:
        return [view.gpu for view in self.devices.views if isinstance(view.gpu, Gpu)]

    @cached_property
    def times(self) -> StepTimeModel | MeanStepTimeModel:
        """The mean over all sizes."""
        workers = self.experiment.data.workers
        models = [StepTimeModel(self.costed, geometry, self.pool, workers) for geometry in self.geometries]
        return models[0] if len(models) == 1 else MeanStepTimeModel(models)

    @cached_property
    def is_block(self) -> tuple[bool, ...]:
        return tuple(self.profile.layer_types[name].is_block for name in self.profile.layers)

    @cached_property
    def blocks(self) -> int:
        return sum(self.is_block)

    @cached_property
    def blocks_before(self) -> tuple[int, ...]:
        """For each layer, and for one past the last."""
        return (0, *accumulate(int(block) for block in self.is_block))

    def knows_selective(self, dtype: Dtype) -> bool:
        """Whether every layer was traced with its products kept."""
        return self._traced("selective", dtype)

    def knows_packed(self, dtype: Dtype) -> bool:
        """Whether every layer was traced with what checkpointing keeps packed."""
        return self._traced("packed", dtype)

    def _traced(self, how: str, dtype: Dtype) -> bool:
        key = (how, dtype)
        if key not in self._traces:
            costs = [costs_of(self.profile, name, dtype) for name in self.profile.layer_types]
            self._traces[key] = all(getattr(one, how) is not None for one in costs)
        return self._traces[key]

    @cached_property
    def _traces(self) -> dict[tuple[str, Dtype], bool]:
        return {}

    def least_share(self, stages: int) -> tuple[int, int] | None:
        """A stretch of as many blocks as the stage with most of them has at least; None where blocks
        differ."""
        kinds = {name for name, block in zip(self.profile.layers, self.is_block, strict=True) if block}
        if len(kinds) != 1:
            return None
        first = self.is_block.index(True)
        return first, first + -(-self.blocks // stages)

    def stage_kinds(self, settings: Settings) -> tuple[int, ...]:
        """For each stage the first one of its kind: with its GPU and the links of its data-parallel ranks."""
        key = (
            settings.pipeline_parallel_size,
            settings.data_parallel_size,
            settings.tensor_parallel_size,
            settings.sequence_parallel_size,
        )
        if key not in self._stage_kinds:
            firsts: dict[Signature, int] = {}
            self._stage_kinds[key] = tuple(
                firsts.setdefault((device, self.times.data_paths(settings, stage)), stage)
                for stage, device in enumerate(self.device_classes(settings))
            )
        return self._stage_kinds[key]

    @cached_property
    def _stage_kinds(self) -> dict[Signature, tuple[int, ...]]:
        return {}

    def distinct_stages(self, settings: Settings) -> tuple[int, ...]:
        """A stage of each kind that there is."""
        return tuple(sorted(set(self.stage_kinds(settings))))

    @property
    def layers(self) -> int:
        return len(self.profile.layers)

    @property
    def ranks_share_host_memory(self) -> bool:
        """Ranks are processes on processors, without memory of their own."""
        assert isinstance(self.pool.gpu, Gpu)
        return self.pool.gpu.memory_gib is None

    @cached_property
    def devices(self) -> Devices:
        """The pool's kinds of GPU, and the ranks that have them."""
        return Devices(self.pool)

    @cached_property
    def _capacities(self) -> list[int]:
        """Of one rank of each kind: its GPU's memory, or its share of the host's on processors."""
        return [_capacity_bytes(view) for view in self.devices.views]

    @property
    def capacity_bytes(self) -> int:
        """Memory of one rank; of the smallest, where a pool's GPUs differ."""
        return min(self._capacities)

    def capacity_of(self, settings: Settings, stage: int) -> int:
        """Memory of each rank of one pipeline stage: the smallest, where a stage's GPUs differ."""
        return min(self._capacities[kind] for kind in self.devices.of_stage(settings, stage))

    def device_classes(self, settings: Settings) -> tuple[int, ...]:
        """For each pipeline stage the number of its kind of GPU: stages of one kind are equally fast and
        equally large."""
        return self.devices.classes(settings)

    @cached_property
    def gpus_text(self) -> str:
        """`4 x rtx-3090, 24 GiB each`; several kinds one after the other."""
        if self.pool.groups is None:
            gpus = f"{self.pool.world_size} x {self.gpu_name}"
            return f"{gpus}, {self.capacity_bytes / GIB:.4g} GiB each"
        counts: Counter[tuple[str, int]] = Counter()
        for kind, count in self.devices.count(0, self.pool.world_size).items():
            counts[self.kind_names[kind], self._capacities[kind]] += count
        return " + ".join(
            f"{count} x {name} ({size / GIB:.4g} GiB)" for (name, size), count in counts.items()
        )

    def price_per_hour(self, world_size: int) -> float | None:
        """Of the first so many GPUs of the pool, in the lab's currency; None where one has no price."""
        counts = self.devices.count(0, world_size)
        prices = [(self.devices.views[kind].price_per_gpu_hour, count) for kind, count in counts.items()]
        if any(price is None for price, _ in prices):
            return None
        return sum(count * price for price, count in prices if price is not None)

    def is_startable(self, ranks: int) -> bool:
        """Whether so many ranks are part of the first node or fill some nodes."""
        if self.pool.groups is None:
            per_node = self.pool.gpus_per_node
            return ranks <= per_node or ranks % per_node == 0
        return ranks in self._startable

    @cached_property
    def _startable(self) -> frozenset[int]:
        groups = self.pool.node_groups
        nodes = [group.gpus_in_use for group in groups for _ in range(group.nodes)]
        return frozenset(accumulate(nodes)) | frozenset(range(1, nodes[0] + 1))

    def has_rate(self, dtype: Dtype) -> bool:
        """Whether the pool's GPU computes in this format."""
        assert isinstance(self.pool.gpu, Gpu)
        return peak_rate_tflops(self.pool.gpu, dtype) is not None

    @cached_property
    def _memory_model(self) -> MemoryModel:
        return MemoryModel(self.costed, self.geometries)

    @cached_property
    def _memory(self) -> dict[Signature, StageBytes]:
        return {}

    def memory(self, settings: Settings, stage: int, start: int, stop: int) -> StageBytes:
        """Bytes on each GPU of `stage` holding the layers start to stop - 1: of the size that needs most."""
        settings, stage = settings.alone(stage), self._alike(settings, stage)
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

    def _alike(self, settings: Settings, stage: int) -> int:
        """The first stage that holds as many micro-batches, and so as much, as this one with these layers."""
        behind = settings.pipeline_parallel_size - stage
        alike = behind >= settings.gradient_accumulation_steps and len(self.devices.views) == 1
        return 0 if alike else stage

    def least_peak_bytes(self, settings: Settings, stage: int, start: int, stop: int) -> int:
        """What `memory` needs without recomputation: no more than its `peak_bytes`."""
        tensors = self._memory_model.plain_tensor_bytes(settings, stage, start, stop)
        return tensors + reserve_bytes(
            tensors,
            self.capacity_of(settings, stage),
            self.pool.memory_reserve_fraction,
            self.ranks_share_host_memory,
        )

    def outside(self, settings: Settings, stage: int, start: int, stop: int) -> OutsideBytes:
        """Bytes of each rank of `stage` in host memory and on flash."""
        return self._memory_model.outside_bytes(settings, stage, start, stop)

    def saved(self, settings: Settings, start: int, stop: int) -> SavedBytes:
        """Bytes of a checkpoint's tensors that ranks of one stage write."""
        return self._memory_model.saved(settings, start, stop)

    def timeline(self, settings: Settings, stage: int, start: int, stop: int) -> StageTimeline:
        """One step of `stage`, moment by moment: of the size that needs most."""
        return self._memory_model.timeline(settings, stage, start, stop)

    def largest_size(self, settings: Settings, stage: int, start: int, stop: int) -> ClipSize:
        """The size that decides `memory`; the first of those that need equally much."""
        peaks = [
            MemoryModel(self.costed, geometry).tensor_bytes(settings, stage, start, stop)
            for geometry in self.geometries
        ]
        return self.sizes[peaks.index(max(peaks))]

    def fits(self, settings: Settings, stage: int, start: int, stop: int) -> bool:
        return self.memory(settings, stage, start, stop).peak_bytes <= self.capacity_of(settings, stage)

    def span(self, start: int, stop: int) -> int:
        """Equal numbers for stretches of layers that hold equally much."""
        number = self._spans.get((start, stop))
        if number is None:
            run = self._run(start, stop)
            ends = (start == 0, stop == self.layers)
            number = self._spans[start, stop] = self._span_numbers.setdefault((run, ends), len(self._spans))
        return number

    @cached_property
    def _spans(self) -> dict[tuple[int, int], int]:
        return {}

    @cached_property
    def _span_numbers(self) -> dict[Signature, int]:
        return {}

    def equal_layers(self, start: int, stop: int) -> Signature | None:
        """What stretches of equal layers have in common whatever their length; None for other stretches."""
        if self._run_ends[start] < stop or start == 0 or stop == self.layers:
            return None
        return (self.profile.layers[start - 1], self._side_makers_before[start], self.profile.layers[start])

    def alike(self, start: int, stop: int) -> Signature:
        """What stretches have in common that differ in how many blocks they hold of one kind, and in nothing
        else; only equal stretches are alike where blocks differ."""
        run = self.span(start, stop)
        first, last = int(start == 0), int(stop == self.layers)
        inner = (start + first, stop - last)
        if inner[0] >= inner[1] or self._run_ends[inner[0]] < inner[1]:
            return ("alone", run)
        before = None if start == 0 else self.profile.layers[start - 1]
        return (first, last, before, self._side_makers_before[start], self.profile.layers[inner[0]])

    def _run(self, start: int, stop: int) -> Signature:
        """Equal for stretches of layers of the same memory: the same types, handed the same tensors."""
        ends = self._run_ends
        before = None if start == 0 else self.profile.layers[start - 1]
        signature: list[object] = [before, self._side_makers_before[start], self._skips_before[start]]
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
    def _skips_before(self) -> list[int]:
        """Hidden states that wait to be joined before each layer, of a U-Net."""
        return [0, *accumulate(self.profile.layer_types[name].skips for name in self.profile.layers)]

    @cached_property
    def _run_ends(self) -> list[int]:
        """For each layer, one past the last of the equal layers that follow it."""
        names = self.profile.layers
        ends = [0] * len(names)
        for index in range(len(names) - 1, -1, -1):
            same = index + 1 < len(names) and names[index] == names[index + 1]
            ends[index] = ends[index + 1] if same else index + 1
        return ends


def _capacity_bytes(pool: Pool) -> int:
    """Memory of one rank of a pool whose GPUs are all alike."""
    assert isinstance(pool.gpu, Gpu)
    if pool.gpu.memory_gib is not None:
        return int(pool.gpu.memory_gib * GIB)
    return int(pool.host_memory_gib * GIB) // pool.gpus_per_node
