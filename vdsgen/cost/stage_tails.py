"""Seconds of what each stage does in a step besides its micro-batches: reduction, gathers, the optimizer and
waiting for what is offloaded."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate, pairwise

from vdsgen.cost.communication import (
    Collective,
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
from vdsgen.cost.compute import optimizer_seconds
from vdsgen.cost.devices import Kinds
from vdsgen.cost.engine_overhead import gathered_sizes
from vdsgen.cost.hardware import Hardware
from vdsgen.cost.micro_batch import MicroBatchTimes
from vdsgen.cost.offload import SegmentWork, activation_waiting_seconds, offload_seconds
from vdsgen.cost.settings import Settings
from vdsgen.cost.step_tail import StageTail
from vdsgen.cost.transfers import Transfers
from vdsgen.cost.wire import gather_memory_bytes, reduction_memory_bytes
from vdsgen.spec.profile import ModelProfile


class StageTails:
    """Of one rank's part of a model."""

    def __init__(
        self,
        profile: ModelProfile,
        hardware: Hardware,
        micro_batch: MicroBatchTimes,
        transfers: Transfers,
    ) -> None:
        """`micro_batch` and `transfers`, beside which offloaded activations move, are of the same part."""
        self._hardware = hardware
        self._micro_batch = micro_batch
        self._transfers = transfers
        self._waiting: dict[tuple[object, ...], float] = {}
        """For the offloaded activations of one micro-batch."""
        types = [profile.layer_types[name] for name in profile.layers]
        self._parameters = [0, *accumulate(layer.parameters for layer in types)]
        self._trainable = [0, *accumulate(layer.trainable_parameters for layer in types)]
        self._gathered = [0, *accumulate(sum(gathered_sizes(layer)) for layer in types)]
        self._tensors = [0, *accumulate(len(layer.parameter_shapes) for layer in types)]

    def of_stages(self, settings: Settings, partition: Sequence[int]) -> list[StageTail]:
        """Of all stages of a partition."""
        return [
            self.of_stage(settings, stage, start, stop)
            for stage, (start, stop) in enumerate(pairwise(partition))
        ]

    def of_stage(self, settings: Settings, stage: int, start: int, stop: int) -> StageTail:
        """What `stage` does besides its micro-batches where it holds the layers start to stop - 1."""
        parameters = self._parameters[stop] - self._parameters[start]
        trainable = self._trainable[stop] - self._trainable[start]
        # ZeRO-3 keeps small parameters; the others are gathered a layer at a time.
        moved = self._gathered[stop] - self._gathered[start] if settings.zero_stage == 3 else parameters
        traffic = step_traffic(settings, moved, trainable, stop - start)
        gathering = self._hardware.data_path(settings, stage, "all_gather")
        reducing = self._reduction(traffic, settings, stage) + self._in_memory(
            trainable, settings, stage, gather=False
        )
        dequantising = self._in_memory(moved, settings, stage, gather=True)
        gathers = traffic.gathers * (gather_seconds(traffic, gathering, settings) + dequantising)
        if traffic.secondary_gathers:
            topology = self._hardware.topology
            assert isinstance(topology, Topology), "hierarchical partitions need nodes that are alike"
            gathers += traffic.secondary_gathers * (
                secondary_gather_seconds(traffic, topology, settings) + dequantising
            )
        moving, update = 0.0, 0.0
        for kind in self._hardware.devices.of_stage(settings, stage):
            host = self._hardware.host(settings, kind)
            traffic_seconds, adam = offload_seconds(settings, parameters, trainable, host)
            moving = max(moving, traffic_seconds)
            update = max(update, adam or self._optimizer(settings, trainable, kind))
        sending = self._hardware.factors.communication_factor
        return StageTail(
            reduce_seconds=sending * traffic.reductions * reducing,
            gather_seconds=sending * gathers,
            optimizer_seconds=self._hardware.factors.optimizer_factor
            * (update + self._bookkeeping(settings, start, stop)),
            offload_seconds=sending * (moving + self._activations_seconds(settings, stage, start, stop)),
        )

    def _reduction(self, traffic: StepTraffic, settings: Settings, stage: int) -> float:
        if is_quantised(settings):
            topology = self._hardware.topology
            assert isinstance(topology, Topology), "quantised reduction needs nodes that are alike"
            return quantised_reduction_seconds(traffic, topology, settings, stage)
        reduce: Collective = "all_reduce" if traffic.reduce_passes == 2 else "reduce_scatter"
        return reduction_seconds(traffic, self._hardware.data_path(settings, stage, reduce), settings)

    def _in_memory(self, elements: int, settings: Settings, stage: int, *, gather: bool) -> float:
        """Casting or quantising what is sent, and back."""
        if settings.sequence_data_parallel_size == 1:
            return 0.0
        each = gather_memory_bytes(settings) if gather else reduction_memory_bytes(settings)
        if not each:
            return 0.0
        slowest = min(
            self._hardware.rates(settings.dtype, kind).bytes_per_second
            for kind in self._hardware.devices.of_stage(settings, stage)
        )
        return elements * each / slowest / self._hardware.speed(settings.world_size)

    def _activations_seconds(self, settings: Settings, stage: int, start: int, stop: int) -> float:
        """What a step of the stage waits for offloaded activations."""
        whole = start + settings.whole_layers(stage, stop - start)
        if not settings.offload_activations or whole == start:
            return 0.0
        kinds = self._hardware.devices.of_stage(settings, stage)
        hosts = tuple([self._hardware.host(settings, kind) for kind in kinds])
        interval = settings.checkpoint_interval(stage)
        key = (settings.micro_batch_size, settings.dtype, kinds, hosts, interval, start, whole)
        if key not in self._waiting:
            segments = self._segments(settings, kinds, interval, range(start, whole))
            overlaps = self._hardware.sharing is None
            self._waiting[key] = max(
                activation_waiting_seconds(segments, host, overlaps=overlaps) for host in hosts
            )
        return settings.gradient_accumulation_steps * self._waiting[key]

    def _segments(
        self, settings: Settings, kinds: Kinds, interval: int, recomputed: range
    ) -> list[SegmentWork]:
        layers = self._micro_batch.layers(settings.micro_batch_size, settings.dtype, kinds)
        hidden = self._transfers.hidden_bytes(settings.micro_batch_size, settings.dtype)
        segments = []
        stop = recomputed.stop
        idle = 0 if recomputed.start else self._micro_batch.idle_layers(interval, stop, stop)
        for begin in recomputed[::interval]:
            if begin < idle:
                continue
            part = layers[begin : min(begin + interval, recomputed.stop)]
            forward = sum([times.forward_seconds for times in part])
            backward = sum([times.backward_seconds for times in part])
            received = hidden[begin - 1] if begin else 0.0  # latents stay
            segments.append(SegmentWork(received, forward, backward + self._hardware.again * forward))
        return segments

    def _optimizer(self, settings: Settings, trainable: int, kind: int) -> float:
        ranks = settings.sequence_data_parallel_size if shards_optimizer(settings) else 1
        mine = -(-trainable // ranks)
        seconds = optimizer_seconds(mine, settings, self._hardware.rates(settings.dtype, kind))
        return seconds / self._hardware.speed(settings.world_size)

    def _bookkeeping(self, settings: Settings, start: int, stop: int) -> float:
        tensors = self._tensors[stop] - self._tensors[start]
        seconds = self._hardware.engine.step_seconds[settings.zero_stage] * tensors
        return seconds / self._hardware.speed(settings.world_size)
