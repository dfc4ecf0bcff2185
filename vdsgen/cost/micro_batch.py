"""Seconds of one micro-batch: each layer's forward and backward, and what a stage that holds it adds."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate, pairwise
from typing import Literal

from vdsgen.cost.compute import (
    LayerTimes,
    accumulation_seconds,
    costs_of,
    layer_times,
    slowest_times,
)
from vdsgen.cost.devices import Kinds
from vdsgen.cost.hardware import Hardware, step_factors
from vdsgen.cost.schedule import StageTimes
from vdsgen.cost.sequence_parallel import sequence_exchange
from vdsgen.cost.settings import Settings
from vdsgen.cost.stage_tensors import checkpoint_segments, idle_layers
from vdsgen.cost.tensor_parallel import Exchange, exchange
from vdsgen.spec.architecture import Geometry
from vdsgen.spec.dtypes import Dtype
from vdsgen.spec.profile import ModelProfile

Again = Literal["nothing", "products aside", "everything"]
"""What of a layer's forward runs once more in backward."""


class MicroBatchTimes:
    """Of one rank's part of a model; remembers layer times, so that many plans are cheap to time."""

    def __init__(self, profile: ModelProfile, geometry: Geometry, hardware: Hardware) -> None:
        self._profile = profile
        self._geometry = geometry
        self._hardware = hardware
        self._devices = hardware.devices
        self._exchanges: dict[tuple[int, Dtype], tuple[Exchange, ...]] = {}
        self._sequence: dict[tuple[int, Dtype], tuple[Exchange, ...]] = {}
        self._layers: dict[tuple[int, Dtype, Kinds, int], tuple[LayerTimes, ...]] = {}
        self._seconds: dict[tuple[object, ...], tuple[float, ...]] = {}
        self._forward: dict[tuple[int, Dtype, Kinds], tuple[float, ...]] = {}
        types = [profile.layer_types[name] for name in profile.layers]
        self._trainable = [0, *accumulate(layer.trainable_parameters for layer in types)]
        self._trains = [layer.trainable_parameters > 0 for layer in types]

    def exchanges(self, settings: Settings) -> tuple[Exchange, ...]:
        """Every layer's collectives between the ranks that share it or its samples, for one micro-batch."""
        key = (settings.micro_batch_size, settings.dtype)
        if key not in self._exchanges:
            factor = self._hardware.factors.communication_factor
            by_type = {
                name: exchange(layer, settings, self._geometry, self._hardware.topology).slowed(factor)
                for name, layer in self._profile.layer_types.items()
            }
            own = [by_type[name] for name in self._profile.layers]
            sequence = self.sequence_exchanges(settings)
            self._exchanges[key] = tuple(one.plus(other) for one, other in zip(own, sequence, strict=True))
        return self._exchanges[key]

    def sequence_exchanges(self, settings: Settings) -> tuple[Exchange, ...]:
        """The part of `exchanges` that is between ranks which share samples."""
        key = (settings.micro_batch_size, settings.dtype)
        if key not in self._sequence:
            factor = self._hardware.factors.communication_factor
            kinds = range(len(self._devices.views))
            slowest = min(self._hardware.rates(settings.dtype, kind).bytes_per_second for kind in kinds)
            by_type = {
                name: sequence_exchange(
                    self._profile, name, settings, self._geometry, self._hardware.topology, slowest
                ).slowed(factor)
                for name in self._profile.layer_types
            }
            self._sequence[key] = tuple(by_type[name] for name in self._profile.layers)
        return self._sequence[key]

    def layers(
        self, micro_batch_size: int, dtype: Dtype, kinds: Kinds = (0,), zero_stage: int = 0
    ) -> tuple[LayerTimes, ...]:
        """Every layer's times for one micro-batch, on the slowest of these kinds of GPU. A GPU computes while
        the engine's Python runs, so that only the longer of the two counts."""
        key = (micro_batch_size, dtype, kinds, zero_stage)
        if key not in self._layers:
            if len(kinds) > 1:
                alone = (self.layers(micro_batch_size, dtype, (kind,), zero_stage) for kind in kinds)
                self._layers[key] = tuple(slowest_times(times) for times in zip(*alone, strict=True))
                return self._layers[key]
            factors = step_factors(self._devices.views[kinds[0]])
            rates = self._hardware.rates(dtype, kinds[0])
            engine = self._hardware.engine
            by_type = {
                name: layer_times(
                    costs_of(self._profile, name, dtype),
                    micro_batch_size,
                    self._geometry,
                    rates,
                    layer,
                    0.0 if rates.dispatch_adds_up else engine.layer_seconds(zero_stage, layer),
                ).slowed(factors.compute_factor)
                for name, layer in self._profile.layer_types.items()
            }
            self._layers[key] = tuple(by_type[name] for name in self._profile.layers)
        return self._layers[key]

    def forward_seconds(self, settings: Settings, stage: int = 0) -> tuple[float, ...]:
        """Each layer's forward for one micro-batch: what of `layer_seconds` comes before backward."""
        key = (settings.micro_batch_size, settings.dtype, self._devices.of_stage(settings, stage))
        if key not in self._forward:
            self._forward[key] = tuple(
                times.forward_seconds + one.forward_seconds
                for times, one in zip(
                    self.layers(*key, settings.zero_stage), self.exchanges(settings), strict=True
                )
            )
        return self._forward[key]

    def layer_seconds(self, settings: Settings, stage: int = 0) -> tuple[float, ...]:
        """What each layer adds to the time of a stage that holds it, for one micro-batch: what a partition
        balances. `stage` matters where stages have GPUs of several kinds.

        Checkpointing runs every layer's forward again, embedding and final projection included
        (model/pipeline.py, run_segments), where a stage has selective layers as all of these do; but
        `stage_seconds` knows which layers run plainly, and which are recomputed whole.
        """
        if settings.checkpoint_interval(stage) == 0:
            return self._layer_seconds(settings, stage, "nothing")
        selective = settings.stage_selective_layers
        return self._layer_seconds(
            settings, stage, "products aside" if selective and selective[stage] else "everything"
        )

    def _layer_seconds(self, settings: Settings, stage: int, again: Again) -> tuple[float, ...]:
        several = settings.gradient_accumulation_steps > 1
        accumulation = settings.gradient_accumulation_dtype
        zero = settings.zero_stage
        kinds = self._devices.of_stage(settings, stage)
        key = (
            settings.micro_batch_size,
            settings.dtype,
            accumulation,
            several,
            again,
            zero,
            kinds,
            settings.packs,
        )
        if key not in self._seconds:
            slower = self._hardware.factors.compute_factor
            every = [self._hardware.rates(settings.dtype, kind) for kind in kinds]
            in_turn = all(rates.dispatch_adds_up for rates in every)
            engine = {
                name: self._hardware.engine.layer_seconds(zero, layer) if in_turn else 0.0
                for name, layer in self._profile.layer_types.items()
            }
            exchanges = self._exchange_seconds(settings, again)
            self._seconds[key] = tuple(
                times.forward_seconds
                + self._hardware.again * self._again_seconds(times, again, settings)
                + times.backward_seconds
                + slower
                * max(
                    accumulation_seconds(self._trainable[index + 1] - self._trainable[index], settings, rates)
                    for rates in every
                )
                + slower * engine[self._profile.layers[index]]
                + exchanges[index]
                for index, times in enumerate(
                    self.layers(settings.micro_batch_size, settings.dtype, kinds, zero)
                )
            )
        return self._seconds[key]

    @staticmethod
    def _again_seconds(times: LayerTimes, again: Again, settings: Settings) -> float:
        """With packing and unpacking, where that is done: as if each layer were a segment, in backward."""
        if again == "nothing":
            return 0.0
        if not settings.packs:
            return times.forward_seconds if again == "everything" else times.selective_seconds
        recomputed = times.forward_seconds if again == "everything" else times.packed_selective_seconds
        return recomputed + times.packing_seconds

    def _exchange_seconds(self, settings: Settings, again: Again) -> list[float]:
        """Sums over tensor-parallel ranks are kept with the products; sequence-parallel ranks exchange once
        more."""
        every = [one.seconds(recompute=again == "everything") for one in self.exchanges(settings)]
        if again != "products aside":
            return every
        sequence = self.sequence_exchanges(settings)
        return [
            one + shared.seconds(recompute=True) - shared.seconds(recompute=False)
            for one, shared in zip(every, sequence, strict=True)
        ]

    def stage_seconds(self, settings: Settings, stage: int, start: int, stop: int) -> float:
        """One micro-batch on `stage` with the layers start to stop - 1, of which it may recompute the first
        alone, and some of those selectively."""
        parts = self._parts(settings, stage, start, stop)
        return sum([sum(self._layer_seconds(settings, stage, again)[a:b]) for again, a, b in parts])

    def stage_times(self, settings: Settings, partition: Sequence[int]) -> list[StageTimes]:
        """One micro-batch on each stage. `partition` holds the stages' boundaries, len stages + 1."""
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
        return self._hardware.engine.pipeline_seconds / 2 * self._hardware.factors.compute_factor

    def recomputed_seconds(self, settings: Settings, partition: Sequence[int]) -> float:
        """Forwards that checkpointing runs again, of all stages together, at the speed they first run at."""
        recomputed = 0.0
        for stage, (start, stop) in enumerate(pairwise(partition)):
            own = self.layers(
                settings.micro_batch_size, settings.dtype, self._devices.of_stage(settings, stage)
            )
            for again, a, b in self._parts(settings, stage, start, stop):
                recomputed += sum([self._again_seconds(times, again, settings) for times in own[a:b]])
        return recomputed

    def exchange_seconds(self, settings: Settings, partition: Sequence[int]) -> tuple[float, float]:
        """Collectives between ranks that share blocks, and between those that share samples: of all stages
        together."""
        tensor = sequence = 0.0
        shared = self.sequence_exchanges(settings)
        for stage, (start, stop) in enumerate(pairwise(partition)):
            for again, a, b in self._parts(settings, stage, start, stop):
                repeated = sum([one.seconds(recompute=again != "nothing") for one in shared[a:b]])
                sequence += repeated
                tensor += sum(self._exchange_seconds(settings, again)[a:b]) - repeated
        return tensor, sequence

    def model_flops(self, settings: Settings) -> float:
        """Of one micro-batch through all layers, however many ranks share them."""
        layers = self.layers(settings.micro_batch_size, settings.dtype)
        return sum(times.model_flops for times in layers)

    def _parts(
        self, settings: Settings, stage: int, start: int, stop: int
    ) -> tuple[tuple[Again, int, int], ...]:
        """What runs again of a stage's layers: of those that no backward comes to, of the first after them,
        of those that follow, and of its last."""
        whole = start + settings.whole_layers(stage, stop - start)
        plain = start + settings.checkpointed_layers(stage, stop - start)
        idle = start if start else self.idle_layers(settings.checkpoint_interval(stage), whole, plain)
        return (
            ("nothing", start, idle),
            ("everything", min(idle, whole), whole),
            ("products aside", max(idle, whole), plain),
            ("nothing", plain, stop),
        )

    def idle_layers(self, interval: int, whole: int, plain_from: int) -> int:
        """Of the first stage, whose first `whole` layers are in segments of `interval`, and those up to
        `plain_from` in segments of one: how many no backward comes to."""
        return idle_layers(checkpoint_segments(whole, interval), plain_from, self._trains)
