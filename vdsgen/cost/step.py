"""Seconds of one optimizer step of a plan: pipeline, gradient reduction, optimizer, gathers."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate, pairwise
from typing import NamedTuple

from vdsgen.cost.communication import (
    Collective,
    Topology,
    gather_seconds,
    reduction_seconds,
    shards_optimizer,
    step_traffic,
)
from vdsgen.cost.compute import (
    LayerTimes,
    accumulation_seconds,
    costs_of,
    layer_times,
    optimizer_seconds,
)
from vdsgen.cost.engine_overhead import EngineOverhead, gathered_sizes
from vdsgen.cost.offload import Host, SegmentWork, activation_waiting_seconds, offload_seconds
from vdsgen.cost.rates import Rates
from vdsgen.cost.schedule import PipelineRun, StageTimes, makespan_lower_bound, simulate
from vdsgen.cost.settings import Settings
from vdsgen.cost.shared_processor import Sharing, simulate_shared
from vdsgen.cost.step_time import StepTime
from vdsgen.spec.architecture import Geometry
from vdsgen.spec.calibration import Calibration, middle
from vdsgen.spec.experiment import Dtype
from vdsgen.spec.lab import Pool
from vdsgen.spec.profile import ModelProfile
from vdsgen.spec.step_factors import StepFactors

TRANSFERRED_TENSORS = 2
"""Messages of one activation between stages: hidden state and modulation (a text condition adds one)."""


class _Tail(NamedTuple):
    """What a step does besides its micro-batches; of the slowest stage, reductions of each."""

    reduce_seconds: tuple[float, ...]
    gather_seconds: float
    optimizer_seconds: float
    offload_seconds: float
    overhead_seconds: float

    @property
    def common_seconds(self) -> float:
        """After the last reduction."""
        return self.gather_seconds + self.optimizer_seconds + self.offload_seconds + self.overhead_seconds


class StepTimeModel:
    """Times steps of one model on one pool; remembers layer times, so that many plans are cheap to time."""

    def __init__(
        self, profile: ModelProfile, geometry: Geometry, pool: Pool, loader_workers: int | None = None
    ) -> None:
        """`loader_workers` a rank decode clips, where the calibration says how long one takes."""
        self.profile = profile
        self.geometry = geometry
        self.pool = pool
        self.loader_workers = loader_workers
        self.topology = Topology.of(pool)
        self.factors = step_factors(pool)
        self._again = self.factors.recompute_factor / self.factors.compute_factor
        """A forward that runs again, over one that runs first."""
        self.host = Host.of(pool)
        self.sharing = Sharing.of(pool)
        self.engine = EngineOverhead.of(pool)
        known = pool.calibration.clip_seconds if isinstance(pool.calibration, Calibration) else None
        self._clip_seconds = None if known is None else middle(known)
        self._rates: dict[Dtype, Rates] = {}
        self._layers: dict[tuple[int, Dtype], tuple[LayerTimes, ...]] = {}
        self._hidden: dict[tuple[int, Dtype], tuple[float, ...]] = {}
        self._boundaries: dict[tuple[int, Dtype], tuple[float, ...]] = {}
        self._seconds: dict[tuple[object, ...], tuple[float, ...]] = {}
        types = [profile.layer_types[name] for name in profile.layers]
        self._parameters = [0, *accumulate(layer.parameters for layer in types)]
        self._trainable = [0, *accumulate(layer.trainable_parameters for layer in types)]
        self._gathered = [0, *accumulate(sum(gathered_sizes(layer)) for layer in types)]
        self._tensors = [0, *accumulate(len(layer.parameter_shapes) for layer in types)]

    def rates(self, dtype: Dtype) -> Rates:
        if dtype not in self._rates:
            self._rates[dtype] = Rates.of(self.pool, dtype)
        return self._rates[dtype]

    def layers(self, micro_batch_size: int, dtype: Dtype) -> tuple[LayerTimes, ...]:
        """Every layer's times for one micro-batch."""
        key = (micro_batch_size, dtype)
        if key not in self._layers:
            by_type = {
                name: layer_times(
                    costs_of(self.profile, name, dtype),
                    micro_batch_size,
                    self.geometry,
                    self.rates(dtype),
                    layer,
                ).slowed(self.factors.compute_factor)
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

    def layer_seconds(self, settings: Settings, stage: int = 0) -> tuple[float, ...]:  # noqa: ARG002
        """What each layer adds to the time of a stage that holds it, for one micro-batch: what a partition
        balances. `stage` matters where stages have GPUs of several kinds.

        Checkpointing runs every layer's forward again: segments cover the whole stage, embedding and
        final projection included (model/pipeline.py, run_segments).
        """
        recompute = settings.activation_checkpoint_interval > 0
        several = settings.gradient_accumulation_steps > 1
        accumulation = settings.gradient_accumulation_dtype
        zero = settings.zero_stage
        key = (settings.micro_batch_size, settings.dtype, accumulation, several, recompute, zero)
        if key not in self._seconds:
            rates, slower = self.rates(settings.dtype), self.factors.compute_factor
            engine = {
                name: self.engine.layer_seconds(zero, layer)
                for name, layer in self.profile.layer_types.items()
            }
            self._seconds[key] = tuple(
                times.forward_seconds * (1 + self._again if recompute else 1)
                + times.backward_seconds
                + slower
                * accumulation_seconds(self._trainable[index + 1] - self._trainable[index], settings, rates)
                + slower * engine[self.profile.layers[index]]
                for index, times in enumerate(self.layers(settings.micro_batch_size, settings.dtype))
            )
        return self._seconds[key]

    def stage_times(self, settings: Settings, partition: Sequence[int]) -> list[StageTimes]:
        """One micro-batch on each stage. `partition` holds the stages' boundaries, len stages + 1."""
        layers = self.layers(settings.micro_batch_size, settings.dtype)
        seconds = self.layer_seconds(settings)
        stages = []
        instructions = self.engine.pipeline_seconds / 2 if len(partition) > 2 else 0.0
        instructions *= self.factors.compute_factor
        for start, stop in pairwise(partition):
            forward = sum(times.forward_seconds for times in layers[start:stop])
            backward = sum(seconds[start:stop]) - forward
            stages.append(StageTimes(forward + instructions, backward + instructions))
        return stages

    def lower_bound_seconds(self, settings: Settings, partition: Sequence[int]) -> float:
        """Seconds that the step takes at least, found without running the pipeline; exact for one stage."""
        stages = self.stage_times(settings, partition)
        micro_batches = settings.gradient_accumulation_steps
        tail = self._tail(settings, partition)
        if self.sharing is not None:
            bound = self._shared_bound(settings, stages) + min(tail.reduce_seconds)
            return bound + tail.common_seconds
        bound, forwards_before = makespan_lower_bound(stages, micro_batches), 0.0
        for stage, reduce_seconds in zip(stages, tail.reduce_seconds, strict=True):
            bound = max(bound, forwards_before + micro_batches * stage.busy_seconds + reduce_seconds)
            forwards_before += stage.forward_seconds
        return bound + tail.common_seconds

    def _shared_bound(self, settings: Settings, stages: Sequence[StageTimes]) -> float:
        """Of the pipeline on shared cores: no rank is faster than alone, no core ever more than busy."""
        assert self.sharing is not None
        micro_batches, ranks = settings.gradient_accumulation_steps, settings.data_parallel_size
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
        micro_batches = settings.gradient_accumulation_steps
        stages = self.stage_times(settings, partition)
        transfers = self._transfers(settings, partition)
        run = self._run(settings, stages, transfers)
        free = run if not any(transfers) else self._run(settings, stages, [0.0] * len(transfers))

        tail = self._tail(settings, partition)
        reduced = max(
            end + seconds for end, seconds in zip(run.stage_end_seconds, tail.reduce_seconds, strict=True)
        )
        layers = self.layers(settings.micro_batch_size, settings.dtype)
        recompute = 0.0
        if settings.activation_checkpoint_interval > 0:
            recompute = micro_batches * sum(times.forward_seconds for times in layers) / len(stages)
            recompute *= self._again / self._speed(settings.world_size)
        return StepTime(
            stages=tuple(stages),
            compute_seconds=free.busy_seconds - recompute,
            recompute_seconds=recompute,
            bubble_seconds=free.makespan_seconds - free.busy_seconds,
            transfer_seconds=run.makespan_seconds - free.makespan_seconds,
            reduction_seconds=reduced - run.makespan_seconds,
            gather_seconds=tail.gather_seconds,
            optimizer_seconds=tail.optimizer_seconds,
            samples=settings.micro_batch_size * micro_batches * settings.data_parallel_size,
            model_flops=sum(times.model_flops for times in layers)
            * micro_batches
            * settings.data_parallel_size,
            peak_flops_per_second=self.rates(settings.dtype).peak_flops_per_second * self._devices(settings),
            offload_seconds=tail.offload_seconds,
            data_seconds=self._waiting_seconds(settings, reduced + tail.common_seconds),
            data_is_known=self._clip_seconds is not None,
            overhead_seconds=tail.overhead_seconds,
        )

    def _devices(self, settings: Settings) -> int:
        """GPUs, or the cores that ranks share."""
        cores = settings.world_size if self.sharing is None else self.sharing.cores
        return min(settings.world_size, cores)

    def _run(
        self, settings: Settings, stages: Sequence[StageTimes], transfers: Sequence[float]
    ) -> PipelineRun:
        micro_batches = settings.gradient_accumulation_steps
        if self.sharing is None:
            return simulate(stages, transfers, micro_batches)
        ranks = settings.data_parallel_size
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

    def _tail(self, settings: Settings, partition: Sequence[int]) -> _Tail:
        reduces, gathers, updates, offloads = [], [], [], []
        for stage, (start, stop) in enumerate(pairwise(partition)):
            parameters = self._parameters[stop] - self._parameters[start]
            trainable = self._trainable[stop] - self._trainable[start]
            # ZeRO-3 keeps small parameters; the others are gathered a layer at a time.
            moved = self._gathered[stop] - self._gathered[start] if settings.zero_stage == 3 else parameters
            traffic = step_traffic(settings, moved, trainable, stop - start)
            reduce: Collective = "all_reduce" if traffic.reduce_passes == 2 else "reduce_scatter"
            reducing = self.topology.data_group(settings, stage, reduce)
            gathering = self.topology.data_group(settings, stage, "all_gather")
            reduces.append(traffic.reductions * reduction_seconds(traffic, reducing, settings))
            gathers.append(traffic.gathers * gather_seconds(traffic, gathering, settings))
            moving, adam = offload_seconds(settings, parameters, trainable, self.host)
            moving += self._activations_seconds(settings, stage, start, stop)
            offloads.append(moving)
            update = adam or self._optimizer(settings, trainable)
            updates.append(update + self._bookkeeping(settings, start, stop))
        factors = self.factors
        return _Tail(
            reduce_seconds=tuple(factors.communication_factor * seconds for seconds in reduces),
            gather_seconds=factors.communication_factor * max(gathers),
            optimizer_seconds=factors.optimizer_factor * max(updates),
            offload_seconds=factors.communication_factor * max(offloads),
            overhead_seconds=factors.overhead_seconds,
        )

    def _activations_seconds(self, settings: Settings, stage: int, start: int, stop: int) -> float:
        """What a step of the stage waits for offloaded activations."""
        interval = settings.checkpoint_interval(stage)
        if not settings.offload_activations or interval == 0:
            return 0.0
        layers = self.layers(settings.micro_batch_size, settings.dtype)
        hidden = self.hidden_bytes(settings.micro_batch_size, settings.dtype)
        segments = []
        for begin in range(start, stop, interval):
            part = layers[begin : min(begin + interval, stop)]
            forward = sum([times.forward_seconds for times in part])
            backward = sum([times.backward_seconds for times in part])
            received = hidden[begin - 1] if begin else 0.0  # latents stay
            segments.append(SegmentWork(received, forward, backward + self._again * forward))
        overlaps = self.sharing is None
        waiting = activation_waiting_seconds(segments, self.host, overlaps=overlaps)
        return settings.gradient_accumulation_steps * waiting

    def hidden_bytes(self, micro_batch_size: int, dtype: Dtype) -> tuple[float, ...]:
        """Each layer's output for one micro-batch, without side tensors."""
        key = (micro_batch_size, dtype)
        if key not in self._hidden:
            self._hidden[key] = tuple(
                costs_of(self.profile, name, dtype).output_bytes.at(micro_batch_size, self.geometry)
                for name in self.profile.layers
            )
        return self._hidden[key]

    def _transfers(self, settings: Settings, partition: Sequence[int]) -> list[float]:
        volumes = self.boundary_bytes(settings.micro_batch_size, settings.dtype)
        messages = TRANSFERRED_TENSORS + (1 if self.geometry.text_tokens else 0)
        return [
            self.factors.communication_factor
            * self.topology.stage_boundary(settings, stage).send_seconds(volumes[boundary - 1], messages)
            for stage, boundary in enumerate(partition[1:-1])
        ]

    def _optimizer(self, settings: Settings, trainable: int) -> float:
        ranks = settings.data_parallel_size if shards_optimizer(settings) else 1
        mine = -(-trainable // ranks)
        seconds = optimizer_seconds(mine, settings, self.rates(settings.dtype))
        return seconds / self._speed(settings.world_size)

    def _bookkeeping(self, settings: Settings, start: int, stop: int) -> float:
        tensors = self._tensors[stop] - self._tensors[start]
        seconds = self.engine.step_seconds[settings.zero_stage] * tensors
        return seconds / self._speed(settings.world_size)


def step_factors(pool: Pool) -> StepFactors:
    """What an ablation learned of the pool; all ones where none did."""
    factors = pool.calibration.step_factors if isinstance(pool.calibration, Calibration) else None
    return factors or StepFactors()
