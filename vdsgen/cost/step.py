"""Seconds of one optimizer step of a plan: pipeline, gradient reduction, optimizer, gathers."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate, pairwise

from vdsgen.cost.communication import (
    Collective,
    Path,
    StepTraffic,
    Topology,
    gather_seconds,
    is_quantised,
    quantised_reduction_seconds,
    reduction_seconds,
    secondary_gather_seconds,
    shards_optimizer,
    step_traffic,
)
from vdsgen.cost.compute import (
    LayerTimes,
    accumulation_seconds,
    costs_of,
    layer_times,
    optimizer_seconds,
    slowest_times,
)
from vdsgen.cost.devices import Devices, Kinds
from vdsgen.cost.engine_overhead import EngineOverhead, gathered_sizes
from vdsgen.cost.offload import Host, SegmentWork, activation_waiting_seconds, offload_seconds
from vdsgen.cost.rates import Rates
from vdsgen.cost.schedule import (
    PipelineRun,
    StageTimes,
    makespan_lower_bound,
    simulate,
    stage_end_lower_bounds,
)
from vdsgen.cost.sequence_parallel import sequence_exchange
from vdsgen.cost.settings import Settings
from vdsgen.cost.shared_processor import Sharing, simulate_shared
from vdsgen.cost.step_tail import StageTail, StepTail
from vdsgen.cost.step_time import StepTime
from vdsgen.cost.tensor_parallel import Exchange, exchange
from vdsgen.cost.unequal_nodes import topology_of
from vdsgen.cost.wire import gather_memory_bytes, reduction_memory_bytes
from vdsgen.spec.architecture import Geometry
from vdsgen.spec.calibration import Calibration, middle
from vdsgen.spec.experiment import Dtype
from vdsgen.spec.lab import Pool
from vdsgen.spec.profile import ModelProfile
from vdsgen.spec.step_factors import StepFactors

TRANSFERRED_TENSORS = 2
"""Messages of one activation between stages: hidden state and modulation (a text condition adds one)."""


class StepTimeModel:
    """Times steps of one model on one pool; remembers layer times, so that many plans are cheap to time."""

    def __init__(
        self,
        profile: ModelProfile,
        geometry: Geometry,
        pool: Pool,
        loader_workers: int | None = None,
        *,
        whole: StepTimeModel | None = None,
        tensor_parallel_size: int = 1,
    ) -> None:
        """`loader_workers` a rank decode clips, where the calibration says how long one takes. `profile` and
        `geometry` are one rank's part of `whole`, where several share its blocks or samples."""
        self._whole = whole or self
        self._tensor_parallel_size = tensor_parallel_size
        self._sequence_parallel_size = geometry.sequence_parallel_size
        self._parts: dict[tuple[int, int], StepTimeModel] = {}
        self._exchanges: dict[tuple[int, Dtype], tuple[Exchange, ...]] = {}
        self._sequence: dict[tuple[int, Dtype], tuple[Exchange, ...]] = {}
        self.profile = profile
        self.geometry = geometry
        self.pool = pool
        self.loader_workers = loader_workers
        self.topology = topology_of(pool)
        self.devices = Devices(pool)
        self.factors = step_factors(pool)
        self._again = self.factors.recompute_factor / self.factors.compute_factor
        """A forward that runs again, over one that runs first."""
        self._hosts: dict[tuple[int, int], Host] = {}
        self.sharing = Sharing.of(pool)
        self.engine = EngineOverhead.of(pool)
        known = pool.calibration.clip_seconds if isinstance(pool.calibration, Calibration) else None
        self._clip_seconds = None if known is None else middle(known)
        self._rates: dict[tuple[Dtype, int], Rates] = {}
        self._layers: dict[tuple[int, Dtype, Kinds], tuple[LayerTimes, ...]] = {}
        self._hidden: dict[tuple[int, Dtype], tuple[float, ...]] = {}
        self._boundaries: dict[tuple[int, Dtype], tuple[float, ...]] = {}
        self._seconds: dict[tuple[object, ...], tuple[float, ...]] = {}
        self._forward: dict[tuple[int, Dtype, Kinds], tuple[float, ...]] = {}
        self._paths: dict[tuple[object, ...], Path] = {}
        self._sends: dict[tuple[object, ...], tuple[float, ...]] = {}
        types = [profile.layer_types[name] for name in profile.layers]
        self._parameters = [0, *accumulate(layer.parameters for layer in types)]
        self._trainable = [0, *accumulate(layer.trainable_parameters for layer in types)]
        self._gathered = [0, *accumulate(sum(gathered_sizes(layer)) for layer in types)]
        self._tensors = [0, *accumulate(len(layer.parameter_shapes) for layer in types)]

    def _part(self, settings: Settings) -> StepTimeModel:
        """What each rank has where several share blocks or samples. Raises ValueError for a number not
        traced."""
        tensor, sequence = settings.tensor_parallel_size, settings.sequence_parallel_size
        if tensor == self._tensor_parallel_size and sequence == self._sequence_parallel_size:
            return self
        part = self._parts.get((tensor, sequence))
        if part is None:
            part = self._parts[tensor, sequence] = StepTimeModel(
                self.profile.shared_by(tensor),
                self.geometry._replace(sequence_parallel_size=sequence),
                self.pool,
                self.loader_workers,
                whole=self,
                tensor_parallel_size=tensor,
            )
        return part

    def exchanges(self, settings: Settings) -> tuple[Exchange, ...]:
        """Every layer's collectives between the ranks that share it or its samples, for one micro-batch."""
        key = (settings.micro_batch_size, settings.dtype)
        if key not in self._exchanges:
            factor = self.factors.communication_factor
            by_type = {
                name: exchange(layer, settings, self.geometry, self.topology).slowed(factor)
                for name, layer in self.profile.layer_types.items()
            }
            own = (by_type[name] for name in self.profile.layers)
            self._exchanges[key] = tuple(
                one.plus(other) for one, other in zip(own, self.sequence_exchanges(settings), strict=True)
            )
        return self._exchanges[key]

    def sequence_exchanges(self, settings: Settings) -> tuple[Exchange, ...]:
        """The part of `exchanges` that is between ranks which share samples."""
        key = (settings.micro_batch_size, settings.dtype)
        if key not in self._sequence:
            factor = self.factors.communication_factor
            kinds = range(len(self.devices.views))
            slowest = min(
                (self.rates(settings.dtype, kind) for kind in kinds), key=lambda rates: rates.bytes_per_second
            )
            by_type = {
                name: sequence_exchange(
                    self.profile, name, settings, self.geometry, self.topology, slowest
                ).slowed(factor)
                for name in self.profile.layer_types
            }
            self._sequence[key] = tuple(by_type[name] for name in self.profile.layers)
        return self._sequence[key]

    def rates(self, dtype: Dtype, kind: int = 0) -> Rates:
        """Of one kind of GPU (cost/devices.py)."""
        if (dtype, kind) not in self._rates:
            self._rates[dtype, kind] = Rates.of(self.devices.views[kind], dtype)
        return self._rates[dtype, kind]

    def layers(self, micro_batch_size: int, dtype: Dtype, kinds: Kinds = (0,)) -> tuple[LayerTimes, ...]:
        """Every layer's times for one micro-batch, on the slowest of these kinds of GPU."""
        key = (micro_batch_size, dtype, kinds)
        if key not in self._layers:
            if len(kinds) > 1:
                each = zip(*(self.layers(micro_batch_size, dtype, (kind,)) for kind in kinds), strict=True)
                self._layers[key] = tuple(slowest_times(times) for times in each)
                return self._layers[key]
            factors = step_factors(self.devices.views[kinds[0]])
            by_type = {
                name: layer_times(
                    costs_of(self.profile, name, dtype),
                    micro_batch_size,
                    self.geometry,
                    self.rates(dtype, kinds[0]),
                    layer,
                ).slowed(factors.compute_factor)
                for name, layer in self.profile.layer_types.items()
            }
            self._layers[key] = tuple(by_type[name] for name in self.profile.layers)
        return self._layers[key]

    def boundary_bytes(self, micro_batch_size: int, dtype: Dtype) -> tuple[float, ...]:
        """Bytes that each layer hands to the next: its output, and all side tensors made so far."""
        key = (micro_batch_size, dtype)
        if key not in self._boundaries:
            side, volumes = 0.0, []
            for name in self.profile.layers:
                costs = costs_of(self.profile, name, dtype)
                side += costs.side_bytes.at(micro_batch_size, self.geometry)
                volumes.append(costs.output_bytes.at(micro_batch_size, self.geometry) + side)
            self._boundaries[key] = tuple(volumes)
        return self._boundaries[key]

    def forward_seconds(self, settings: Settings, stage: int = 0) -> tuple[float, ...]:
        """Each layer's forward for one micro-batch: what of `layer_seconds` comes before backward."""
        if (part := self._part(settings)) is not self:
            return part.forward_seconds(settings, stage)
        key = (settings.micro_batch_size, settings.dtype, self.devices.of_stage(settings, stage))
        if key not in self._forward:
            self._forward[key] = tuple(
                times.forward_seconds + one.forward_seconds
                for times, one in zip(self.layers(*key), self.exchanges(settings), strict=True)
            )
        return self._forward[key]

    def layer_seconds(self, settings: Settings, stage: int = 0) -> tuple[float, ...]:
        """What each layer adds to the time of a stage that holds it, for one micro-batch: what a partition
        balances. `stage` matters where stages have GPUs of several kinds.

        Checkpointing runs every layer's forward again, embedding and final projection included
        (model/pipeline.py, run_segments); but `stage_seconds` knows of layers that run plainly.
        """
        return self._layer_seconds(settings, stage, recompute=settings.checkpoint_interval(stage) > 0)

    def _layer_seconds(self, settings: Settings, stage: int, *, recompute: bool) -> tuple[float, ...]:
        if (part := self._part(settings)) is not self:
            return part._layer_seconds(settings, stage, recompute=recompute)
        several = settings.gradient_accumulation_steps > 1
        accumulation = settings.gradient_accumulation_dtype
        zero = settings.zero_stage
        kinds = self.devices.of_stage(settings, stage)
        key = (settings.micro_batch_size, settings.dtype, accumulation, several, recompute, zero, kinds)
        if key not in self._seconds:
            slower = self.factors.compute_factor
            every = [self.rates(settings.dtype, kind) for kind in kinds]
            engine = {
                name: self.engine.layer_seconds(zero, layer)
                for name, layer in self.profile.layer_types.items()
            }
            exchanges = self.exchanges(settings)
            self._seconds[key] = tuple(
                times.forward_seconds * (1 + self._again if recompute else 1)
                + times.backward_seconds
                + slower
                * max(
                    accumulation_seconds(self._trainable[index + 1] - self._trainable[index], settings, rates)
                    for rates in every
                )
                + slower * engine[self.profile.layers[index]]
                + exchanges[index].seconds(recompute=recompute)
                for index, times in enumerate(self.layers(settings.micro_batch_size, settings.dtype, kinds))
            )
        return self._seconds[key]

    def stage_seconds(self, settings: Settings, stage: int, start: int, stop: int) -> float:
        """One micro-batch on `stage` with the layers start to stop - 1, of which it may recompute the first
        alone."""
        plainly = start + settings.checkpointed_layers(stage, stop - start)
        again = self._layer_seconds(settings, stage, recompute=True)[start:plainly]
        return sum(again) + sum(self._layer_seconds(settings, stage, recompute=False)[plainly:stop])

    def stage_times(self, settings: Settings, partition: Sequence[int]) -> list[StageTimes]:
        """One micro-batch on each stage. `partition` holds the stages' boundaries, len stages + 1."""
        if (part := self._part(settings)) is not self:
            return part.stage_times(settings, partition)
        stages = []
        instructions = self.instruction_seconds(settings)
        for stage, (start, stop) in enumerate(pairwise(partition)):
            forward = sum(self.forward_seconds(settings, stage)[start:stop])
            backward = self.stage_seconds(settings, stage, start, stop) - forward
            stages.append(StageTimes(forward + instructions, backward + instructions))
        return stages

    def instruction_seconds(self, settings: Settings) -> float:
        """The engine's own Python in each forward and each backward of a pipeline's stage."""
        if settings.pipeline_parallel_size == 1:
            return 0.0
        return self.engine.pipeline_seconds / 2 * self.factors.compute_factor

    def lower_bound_seconds(self, settings: Settings, partition: Sequence[int]) -> float:
        """Seconds that the step takes at least, found without running the pipeline; exact for one stage."""
        if (part := self._part(settings)) is not self:
            return part.lower_bound_seconds(settings, partition)
        stages = self.stage_times(settings, partition)
        micro_batches = settings.gradient_accumulation_steps
        tail = self._tail(settings, partition)
        if self.sharing is not None:
            bound = self._shared_bound(settings, stages) + min(tail.reduce_seconds)
        else:
            ends = stage_end_lower_bounds(stages, self._transfers(settings, partition), micro_batches)
            bound = max(through for _, through in ends)
            for (own, _), reduce_seconds in zip(ends, tail.reduce_seconds, strict=True):
                bound = max(bound, own + reduce_seconds)
        return self.finished_seconds(settings, bound + tail.common_seconds)

    def _shared_bound(self, settings: Settings, stages: Sequence[StageTimes]) -> float:
        """Of the pipeline on shared cores: no rank is faster than alone, no core ever more than busy."""
        assert self.sharing is not None
        micro_batches, ranks = settings.gradient_accumulation_steps, settings.stage_ranks
        work = micro_batches * sum(stage.busy_seconds for stage in stages) / len(stages)
        all_busy = work / self.sharing.speed(settings.world_size)
        alone = makespan_lower_bound(stages, micro_batches) / self.sharing.speed(ranks)
        return max(all_busy, alone)

    def step(self, settings: Settings, partition: Sequence[int]) -> StepTime:
        """Time one optimizer step.

        After its last backward each stage reduces its gradients; the gradient norm then waits for all.
        Communication never overlaps with compute: plans set `overlap_comm: false` (engine_defaults.py), which
        the engine forces for pipelines anyway (runtime/engine.py:2664).
        """
        if (part := self._part(settings)) is not self:
            return part.step(settings, partition)
        micro_batches = settings.gradient_accumulation_steps
        stages = self.stage_times(settings, partition)
        transfers = self._transfers(settings, partition)
        run = self._run(settings, stages, transfers)
        free = run if not any(transfers) else self._run(settings, stages, [0.0] * len(transfers))

        tail = self._tail(settings, partition)
        reduced = max(
            end + seconds for end, seconds in zip(run.stage_end_seconds, tail.reduce_seconds, strict=True)
        )
        recompute = 0.0
        for stage, (start, stop) in enumerate(pairwise(partition)):
            if again := settings.checkpointed_layers(stage, stop - start):
                own = self.layers(
                    settings.micro_batch_size, settings.dtype, self.devices.of_stage(settings, stage)
                )
                recompute += sum([times.forward_seconds for times in own[start : start + again]])
        recompute *= micro_batches / len(stages) * self._again / self._speed(settings.world_size)
        exchanged = self._exchanged_seconds(settings, partition, self.exchanges(settings)) / len(stages)
        sequence = self._exchanged_seconds(settings, partition, self.sequence_exchanges(settings)) / len(
            stages
        )
        return StepTime(
            stages=tuple(stages),
            compute_seconds=free.busy_seconds - recompute - exchanged,
            recompute_seconds=recompute,
            bubble_seconds=free.makespan_seconds - free.busy_seconds,
            transfer_seconds=run.makespan_seconds - free.makespan_seconds,
            reduction_seconds=reduced - run.makespan_seconds,
            gather_seconds=tail.gather_seconds,
            optimizer_seconds=tail.optimizer_seconds,
            samples=settings.micro_batch_size * micro_batches * settings.data_parallel_size,
            model_flops=self._whole.model_flops(settings) * micro_batches * settings.data_parallel_size,
            peak_flops_per_second=self._peak(settings),
            offload_seconds=tail.offload_seconds,
            data_seconds=self._waiting_seconds(settings, reduced + tail.common_seconds),
            data_is_known=self._clip_seconds is not None,
            overhead_seconds=tail.overhead_seconds,
            tensor_seconds=exchanged - sequence,
            sequence_seconds=sequence,
        )

    def model_flops(self, settings: Settings) -> float:
        """Of one micro-batch through all layers, however many ranks share them."""
        layers = self.layers(settings.micro_batch_size, settings.dtype)
        return sum(times.model_flops for times in layers)

    def _exchanged_seconds(
        self, settings: Settings, partition: Sequence[int], exchanges: Sequence[Exchange]
    ) -> float:
        """A step's exchanges, which each layer has these of for one micro-batch, of all stages together."""
        one = 0.0
        for stage, (start, stop) in enumerate(pairwise(partition)):
            plainly = start + settings.checkpointed_layers(stage, stop - start)
            one += sum([layer.seconds(recompute=True) for layer in exchanges[start:plainly]])
            one += sum([layer.seconds(recompute=False) for layer in exchanges[plainly:stop]])
        return settings.gradient_accumulation_steps * one / self._speed(settings.world_size)

    def step_seconds(
        self, settings: Settings, partition: Sequence[int], tails: Sequence[StageTail] | None = None
    ) -> float:
        """`step(...).step_seconds`, without its parts: one run of the pipeline. `tails` of its stages, where
        they are known."""
        if (part := self._part(settings)) is not self:
            return part.step_seconds(settings, partition, tails)
        if tails is None:
            tail = self._tail(settings, partition)
        else:
            tail = StepTail.of(tails, self.factors.overhead_seconds)
        run = self._run(settings, self.stage_times(settings, partition), self._transfers(settings, partition))
        reduced = max(
            end + seconds for end, seconds in zip(run.stage_end_seconds, tail.reduce_seconds, strict=True)
        )
        return self.finished_seconds(settings, reduced + tail.common_seconds)

    @property
    def shares_cores(self) -> bool:
        """Whether ranks share a processor's cores: stages then slow each other down."""
        return self.sharing is not None

    def step_lower_bound(self, settings: Settings, reduced_seconds: float, common_seconds: float) -> float:
        """A step whose stages have reduced their gradients at `reduced_seconds` at the earliest, were each on
        a device of its own, and that then takes `common_seconds` at least."""
        if self.sharing is not None:  # no rank is faster than alone
            reduced_seconds /= max(1.0, self.sharing.speed(settings.stage_ranks))
        return self.finished_seconds(settings, reduced_seconds + common_seconds)

    def data_paths(self, settings: Settings, stage: int) -> tuple[Path, ...]:
        """What the stage's collectives run over."""
        kinds: tuple[Collective, ...] = ("all_reduce", "reduce_scatter", "all_gather")
        return tuple(self._data_path(settings, stage, kind) for kind in kinds)

    def finished_seconds(self, settings: Settings, step_seconds: float) -> float:
        """A step that has waited for its clips. Rises with `step_seconds`."""
        return step_seconds + self._waiting_seconds(settings, step_seconds)

    def _peak(self, settings: Settings) -> float:
        """Of all GPUs, or of the cores that ranks share."""
        if self.sharing is not None:
            cores = min(settings.world_size, self.sharing.cores)
            return self.rates(settings.dtype).peak_flops_per_second * cores
        return sum(
            count * self.rates(settings.dtype, kind).peak_flops_per_second
            for kind, count in self.devices.count(0, settings.world_size).items()
        )

    def _run(
        self, settings: Settings, stages: Sequence[StageTimes], transfers: Sequence[float]
    ) -> PipelineRun:
        micro_batches = settings.gradient_accumulation_steps
        if self.sharing is None:
            return simulate(stages, transfers, micro_batches)
        ranks = settings.stage_ranks
        return simulate_shared(stages, transfers, micro_batches, self.sharing, ranks)

    def _speed(self, busy_ranks: int) -> float:
        return 1.0 if self.sharing is None else self.sharing.speed(busy_ranks)

    def _waiting_seconds(self, settings: Settings, step_seconds: float) -> float:
        """Clips of one rank that its loader's workers do not finish during a step."""
        if self._clip_seconds is None or self.loader_workers is None:
            return 0.0
        clips = settings.micro_batch_size * settings.gradient_accumulation_steps
        decoding = clips * self._clip_seconds / max(1, self.loader_workers)
        # Without workers the training process decodes by itself, before it computes.
        return decoding if self.loader_workers == 0 else max(0.0, decoding - step_seconds)

    def _tail(self, settings: Settings, partition: Sequence[int]) -> StepTail:
        tails = [
            self.stage_tail(settings, stage, start, stop)
            for stage, (start, stop) in enumerate(pairwise(partition))
        ]
        return StepTail.of(tails, self.factors.overhead_seconds)

    def common_seconds(self, tails: Sequence[StageTail]) -> float:
        """What follows the last reduction, where these are among the stages."""
        return StepTail.of(tails, self.factors.overhead_seconds).common_seconds

    def stage_tail(self, settings: Settings, stage: int, start: int, stop: int) -> StageTail:
        """What `stage` does besides its micro-batches where it holds the layers start to stop - 1."""
        if (part := self._part(settings)) is not self:
            return part.stage_tail(settings, stage, start, stop)
        parameters = self._parameters[stop] - self._parameters[start]
        trainable = self._trainable[stop] - self._trainable[start]
        # ZeRO-3 keeps small parameters; the others are gathered a layer at a time.
        moved = self._gathered[stop] - self._gathered[start] if settings.zero_stage == 3 else parameters
        traffic = step_traffic(settings, moved, trainable, stop - start)
        gathering = self._data_path(settings, stage, "all_gather")
        reducing = self._reduction(traffic, settings, stage) + self._in_memory(
            trainable, settings, stage, gather=False
        )
        dequantising = self._in_memory(moved, settings, stage, gather=True)
        gathers = traffic.gathers * (gather_seconds(traffic, gathering, settings) + dequantising)
        if traffic.secondary_gathers:
            assert isinstance(self.topology, Topology), "hierarchical partitions need nodes that are alike"
            gathers += traffic.secondary_gathers * (
                secondary_gather_seconds(traffic, self.topology, settings) + dequantising
            )
        moving, update = 0.0, 0.0
        for kind in self.devices.of_stage(settings, stage):
            host = self.host(settings, kind)
            traffic_seconds, adam = offload_seconds(settings, parameters, trainable, host)
            moving = max(moving, traffic_seconds)
            update = max(update, adam or self._optimizer(settings, trainable, kind))
        sending = self.factors.communication_factor
        return StageTail(
            reduce_seconds=sending * traffic.reductions * reducing,
            gather_seconds=sending * gathers,
            optimizer_seconds=self.factors.optimizer_factor
            * (update + self._bookkeeping(settings, start, stop)),
            offload_seconds=sending * (moving + self._activations_seconds(settings, stage, start, stop)),
        )

    def host(self, settings: Settings, kind: int = 0) -> Host:
        """What each rank has of a host with this kind of GPU."""
        view = self.devices.views[kind]
        assert view.gpus_per_node is not None, "a kind of GPU has a node"
        ranks = min(settings.world_size, view.gpus_per_node)
        if (kind, ranks) not in self._hosts:
            self._hosts[kind, ranks] = Host.of(view, ranks)
        return self._hosts[kind, ranks]

    def _data_path(self, settings: Settings, stage: int, collective: Collective) -> Path:
        key = (*_degrees(settings), stage, collective)
        if key not in self._paths:
            self._paths[key] = self.topology.data_group(settings, stage, collective)
        return self._paths[key]

    def _stage_boundary(self, settings: Settings, stage: int) -> Path:
        key = (*_degrees(settings), stage)
        if key not in self._paths:
            self._paths[key] = self.topology.stage_boundary(settings, stage)
        return self._paths[key]

    def boundary_seconds(self, settings: Settings, stage: int) -> tuple[float, ...]:
        """For each layer, the seconds that what it hands on takes from `stage` to the next."""
        path = self._stage_boundary(settings, stage)
        key = (path, settings.micro_batch_size, settings.dtype)
        if key not in self._sends:
            messages = TRANSFERRED_TENSORS + (1 if self.geometry.text_tokens else 0)
            self._sends[key] = tuple(
                self.factors.communication_factor * path.send_seconds(volume, messages)
                for volume in self.boundary_bytes(settings.micro_batch_size, settings.dtype)
            )
        return self._sends[key]

    def _activations_seconds(self, settings: Settings, stage: int, start: int, stop: int) -> float:
        """What a step of the stage waits for offloaded activations."""
        interval = settings.checkpoint_interval(stage)
        plainly = start + settings.checkpointed_layers(stage, stop - start)
        if not settings.offload_activations or plainly == start:
            return 0.0
        kinds = self.devices.of_stage(settings, stage)
        layers = self.layers(settings.micro_batch_size, settings.dtype, kinds)
        hidden = self.hidden_bytes(settings.micro_batch_size, settings.dtype)
        segments = []
        for begin in range(start, plainly, interval):
            part = layers[begin : min(begin + interval, plainly)]
            forward = sum([times.forward_seconds for times in part])
            backward = sum([times.backward_seconds for times in part])
            received = hidden[begin - 1] if begin else 0.0  # latents stay
            segments.append(SegmentWork(received, forward, backward + self._again * forward))
        overlaps = self.sharing is None
        waiting = [
            activation_waiting_seconds(segments, self.host(settings, kind), overlaps=overlaps)
            for kind in kinds
        ]
        return settings.gradient_accumulation_steps * max(waiting)

    def hidden_bytes(self, micro_batch_size: int, dtype: Dtype) -> tuple[float, ...]:
        """Each layer's output for one micro-batch, without side tensors."""
        key = (micro_batch_size, dtype)
        if key not in self._hidden:
            self._hidden[key] = tuple(
                costs_of(self.profile, name, dtype).output_bytes.at(micro_batch_size, self.geometry)
                for name in self.profile.layers
            )
        return self._hidden[key]

    def _reduction(self, traffic: StepTraffic, settings: Settings, stage: int) -> float:
        if is_quantised(settings):
            assert isinstance(self.topology, Topology), "quantised reduction needs nodes that are alike"
            return quantised_reduction_seconds(traffic, self.topology, settings, stage)
        reduce: Collective = "all_reduce" if traffic.reduce_passes == 2 else "reduce_scatter"
        return reduction_seconds(traffic, self._data_path(settings, stage, reduce), settings)

    def _in_memory(self, elements: int, settings: Settings, stage: int, *, gather: bool) -> float:
        """Casting or quantising what is sent, and back."""
        if settings.sequence_data_parallel_size == 1:
            return 0.0
        each = gather_memory_bytes(settings) if gather else reduction_memory_bytes(settings)
        if not each:
            return 0.0
        slowest = min(
            self.rates(settings.dtype, kind).bytes_per_second
            for kind in self.devices.of_stage(settings, stage)
        )
        return elements * each / slowest / self._speed(settings.world_size)

    def _transfers(self, settings: Settings, partition: Sequence[int]) -> list[float]:
        return [
            self.boundary_seconds(settings, stage)[boundary - 1]
            for stage, boundary in enumerate(partition[1:-1])
        ]

    def _optimizer(self, settings: Settings, trainable: int, kind: int) -> float:
        ranks = settings.sequence_data_parallel_size if shards_optimizer(settings) else 1
        mine = -(-trainable // ranks)
        seconds = optimizer_seconds(mine, settings, self.rates(settings.dtype, kind))
        return seconds / self._speed(settings.world_size)

    def _bookkeeping(self, settings: Settings, start: int, stop: int) -> float:
        tensors = self._tensors[stop] - self._tensors[start]
        seconds = self.engine.step_seconds[settings.zero_stage] * tensors
        return seconds / self._speed(settings.world_size)


def _degrees(settings: Settings) -> tuple[int, ...]:
    """What decides where ranks lie."""
    return (
        settings.pipeline_parallel_size,
        settings.data_parallel_size,
        settings.tensor_parallel_size,
        settings.sequence_parallel_size,
    )


def step_factors(pool: Pool) -> StepFactors:
    """What an ablation learned of the pool; all ones where none did."""
    factors = pool.calibration.step_factors if isinstance(pool.calibration, Calibration) else None
    return factors or StepFactors()
