"""One configuration of the engine, as the cost functions and the planner's candidates see it."""

from __future__ import annotations

from typing import NamedTuple

from vdsgen.spec.dtypes import Dtype
from vdsgen.spec.plan import ActivationCompression, EmaPlace, GradientCompression, Offload

BYTES_PER_ELEMENT: dict[str, int] = {"fp32": 4, "bf16": 2, "fp16": 2}


class Settings(NamedTuple):
    """Everything about the engine that memory and time depend on."""

    pipeline_parallel_size: int
    data_parallel_size: int
    zero_stage: int
    micro_batch_size: int
    gradient_accumulation_steps: int
    activation_checkpoint_interval: int
    """Blocks a segment; 0 for none."""
    dtype: Dtype
    gradient_accumulation_dtype: Dtype
    reduce_bucket_elements: int
    allgather_bucket_elements: int
    offload_optimizer: Offload = "none"
    """Where ZeRO keeps this rank's master weights and moments."""
    offload_parameters: Offload = "none"
    """Where ZeRO-3 keeps this rank's share of the parameters."""
    tensor_parallel_size: int = 1
    """Ranks that share each block's attention heads and feed-forward columns."""
    sequence_parallel_size: int = 1
    """Ranks that share each sample's tokens."""
    stage_checkpoint_intervals: tuple[int, ...] = ()
    """Blocks a segment on each pipeline stage, where stages differ; empty where all have the same."""
    stage_plain_layers: tuple[int, ...] = ()
    """How many of each stage's last layers keep their activations where the stage recomputes the others;
    empty where every recomputing stage recomputes all."""
    stage_selective_layers: tuple[int, ...] = ()
    """How many of each stage's layers, the last before its plain ones, keep the outputs of their products
    where they are recomputed; empty where none does."""
    offload_activations: bool = False
    """Whether what checkpointing keeps waits for backward in host memory."""
    activation_compression: ActivationCompression = "none"
    """What checkpointing keeps on the device is packed so."""
    communication_dtype: Dtype | None = None
    """What gradients are reduced in; None: the model's dtype, as the engine does by itself."""
    gradient_compression: GradientCompression = "none"
    """Of the trainer's own, between data-parallel ranks."""
    zero_quantized_weights: bool = False
    """ZeRO++: ZeRO-3 gathers parameters in int8."""
    zero_quantized_gradients: bool = False
    """ZeRO++: ZeRO-3 reduces gradients in int4."""
    hierarchical_partition_size: int = 1
    """ZeRO++: ranks of a secondary copy of the parameters, which backward gathers from; 1 for none."""
    int8_moments: bool = False
    """Whether AdamW's moments are block-wise in int8."""
    ema: EmaPlace = "none"
    """Where each rank keeps the average of its optimizer's fp32 weights."""
    ema_every_steps: int = 1
    """How often it is brought up to date."""

    @property
    def world_size(self) -> int:
        return (
            self.pipeline_parallel_size
            * self.data_parallel_size
            * self.tensor_parallel_size
            * self.sequence_parallel_size
        )

    @property
    def sequence_data_parallel_size(self) -> int:
        """Ranks that hold the same part of the model, each for another sample or part of one: the engine's
        data-parallel ranks, over which ZeRO spreads its states and gradients are averaged."""
        return self.data_parallel_size * self.sequence_parallel_size

    @property
    def stage_ranks(self) -> int:
        """Ranks of one pipeline stage."""
        return self.world_size // self.pipeline_parallel_size

    def record(self) -> dict[str, object]:
        """By name, for JSON; what is off or left to the engine is left out."""
        off = Settings._field_defaults
        named = {name: value for name, value in self._asdict().items() if value != off.get(name, self)}
        by_stage = ("stage_checkpoint_intervals", "stage_plain_layers", "stage_selective_layers")
        return named | {name: list(getattr(self, name)) for name in by_stage if name in named}

    def checkpoint_interval(self, stage: int) -> int:
        """Blocks a segment on this stage; 0 for none."""
        intervals = self.stage_checkpoint_intervals
        return intervals[stage] if intervals else self.activation_checkpoint_interval

    def checkpointed_layers(self, stage: int, layers: int) -> int:
        """How many of this stage's `layers` it recomputes, whole or selectively: its first ones."""
        if self.checkpoint_interval(stage) == 0:
            return 0
        plain = self.stage_plain_layers
        return max(0, layers - plain[stage]) if plain else layers

    @property
    def packs(self) -> bool:
        """Whether checkpointed activations take a byte an element."""
        return self.activation_compression != "none"

    def whole_layers(self, stage: int, layers: int) -> int:
        """How many of this stage's `layers` it recomputes whole: its first ones."""
        recomputed, selective = self.checkpointed_layers(stage, layers), self.stage_selective_layers
        return max(0, recomputed - selective[stage]) if selective else recomputed

    @property
    def checkpoints(self) -> bool:
        """Whether any stage recomputes activations."""
        return any(self.stage_checkpoint_intervals) or self.activation_checkpoint_interval > 0

    def alone(self, stage: int) -> Settings:
        """The same settings as far as this stage goes: its interval, its plain and its selective layers for
        all."""
        by_layer = (self.stage_plain_layers, self.stage_selective_layers)
        if not self.stage_checkpoint_intervals and all(len(set(own)) < 2 for own in by_layer):
            return self
        plain, selective = [own[stage] if own else 0 for own in by_layer]
        return self.with_interval(self.checkpoint_interval(stage), plain, selective)

    def with_intervals(
        self,
        intervals: tuple[int, ...],
        plain_layers: tuple[int, ...] = (),
        selective_layers: tuple[int, ...] = (),
    ) -> Settings:
        """With a checkpoint interval for each stage, one number where all have the same; and as many plain
        and selective layers on each."""
        same = len(set(intervals)) == 1
        return self._replace(
            activation_checkpoint_interval=intervals[0],
            stage_checkpoint_intervals=() if same else intervals,
            stage_plain_layers=plain_layers if any(plain_layers) else (),
            stage_selective_layers=selective_layers if any(selective_layers) else (),
        )

    def with_interval(self, interval: int, plain_layers: int = 0, selective_layers: int = 0) -> Settings:
        """With one checkpoint interval, and as many plain and selective layers, for all stages."""
        stages = self.pipeline_parallel_size
        return self.with_intervals(
            (interval,) * stages, (plain_layers,) * stages, (selective_layers,) * stages
        )

    @property
    def offloaded_parts(self) -> int:
        """How much is kept outside the GPU, of optimizer states, parameters and activations."""
        places = (self.offload_optimizer, self.offload_parameters)
        return sum(place != "none" for place in places) + self.offload_activations

    @property
    def communication_changes(self) -> int:
        """In how many ways data-parallel ranks send less than the engine makes them by itself."""
        return sum(
            (
                self.communication_dtype is not None,
                self.gradient_compression != "none",
                self.zero_quantized_weights,
                self.zero_quantized_gradients,
                self.hierarchical_partition_size > 1,
            )
        )

    @property
    def element_bytes(self) -> int:
        return BYTES_PER_ELEMENT[self.dtype]
