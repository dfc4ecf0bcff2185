"""DeepSpeed's engine around the model: one face for the pipelined and the plain one."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import deepspeed
import torch
from deepspeed import comm as dist
from deepspeed.runtime.fp16.unfused_optimizer import FP16_UnfusedOptimizer
from deepspeed.runtime.pipe import schedule
from deepspeed.runtime.pipe.engine import PipelineEngine
from deepspeed.runtime.pipe.topology import PipelineParallelGrid, PipeModelDataParallelTopology
from torch import Tensor

from vdsgen.errors import VdsgenError
from vdsgen.model import compression, corrections
from vdsgen.model.activation_compression import DTYPES, Codec
from vdsgen.model.activation_offload import ActivationOffload
from vdsgen.model.distributed import init_distributed
from vdsgen.model.layers.sequence_parallel import WHOLE, SequenceRanks
from vdsgen.model.layers.tensor_parallel import TensorRanks
from vdsgen.model.objective import diffusion_loss
from vdsgen.model.pipeline import PlannedPipelineModule, SequentialModel, check_partition, layer_specs
from vdsgen.spec.architecture import Geometry, Vdt
from vdsgen.spec.compression import compression_of, refusal
from vdsgen.spec.plan import GradientCompression

Batch = tuple[tuple[Tensor, ...], Tensor]
"""((noised, timestep[, condition]), target) of one micro-batch, on any device."""


class TrainingEngine:
    """What the trainer and the sampler call. Every method is collective: call it on all ranks alike."""

    compressor: compression.GradientCompressor | None
    """Averages gradients in int8, where the config asks for it."""

    def __init__(
        self,
        engine: Any,
        gradient_compression: GradientCompression = "none",
        sequence: SequenceRanks = WHOLE,
    ) -> None:
        self.engine = engine
        self.sequence = sequence
        self.pipelined = isinstance(engine, PipelineEngine)
        self._size = 0
        self._plain_grad_norm: float | None = None
        self._scale_in_step = 1.0
        corrections.forget_initial_step(engine)
        self.compressor = None
        if gradient_compression != "none":
            self.compressor = compression.install(engine, lambda: self.loss_scale)
        if self.pipelined:
            self._instrument_pipeline()

    @property
    def device(self) -> torch.device:
        return torch.device(self.engine.device)

    @property
    def data_parallel_rank(self) -> int:
        """This rank's place among those that see different clips: tensor-parallel ranks see the same, and
        sequence-parallel ranks read the same and keep their rows of it."""
        return self.sequence_data_parallel_rank // self.sequence.size

    @property
    def sequence_data_parallel_rank(self) -> int:
        """This rank's place among those that hold the same part of the model."""
        mpu = self.engine.mpu
        return int(dist.get_rank() if mpu is None else mpu.get_data_parallel_rank())

    @property
    def data_parallel_size(self) -> int:
        return int(self.engine.dp_world_size) // self.sequence.size

    @property
    def needs_data(self) -> bool:
        """Only a pipeline's first and last stage read batches."""
        return not self.pipelined or self.engine.is_first_stage() or self.engine.is_last_stage()

    def train_step(self, batches: Iterator[Batch], size: int = 0) -> float:
        """One optimizer step; takes gradient_accumulation_steps micro-batches from `batches` where
        `needs_data`, `own_rows` of them. Returns the mean loss over the global batch, the same on every rank.

        `size` tells the sizes of clips apart (their places in `Data.sizes`): one for the whole step, and the
        same on every rank."""
        if self.pipelined:
            if size != self._size:
                self._expect_other_shapes()
            self._size = size
            return float(self.engine.train_batch(data_iter=batches))
        self.engine.train()
        total = torch.zeros((), dtype=torch.float32, device=self.device)
        steps = self.engine.gradient_accumulation_steps()
        for _ in range(steps):
            inputs, target = next(batches)
            loss = self.engine(tuple(x.to(self.device) for x in inputs), target.to(self.device))
            self.engine.backward(corrections.scaled_loss(self.engine, loss))
            if self.engine.is_gradient_accumulation_boundary():
                self._before_optimizer_step()
            self.engine.step()
            total += loss.detach()
        total /= steps
        dist.all_reduce(total, group=self.engine.data_parallel_group)
        return float(total / self.engine.dp_world_size)

    def own_rows(self, batch: Batch) -> Batch:
        """Of whole clips, this rank's rows: what it trains on."""
        (noised, *others), target = batch
        return (self.sequence.share(noised), *others), self.sequence.share(target)

    @property
    def global_grad_norm(self) -> float:
        """Norm of the whole model's gradient in the last step, before clipping; inf after an overflow."""
        norm = self.engine.get_global_grad_norm()
        norm = self._plain_grad_norm if norm is None else norm
        assert norm is not None, "global_grad_norm is known after the first step"
        # This wrapper alone reports the norm of the scaled gradients (fp16/unfused_optimizer.py:224).
        scaled = isinstance(self.engine.optimizer, FP16_UnfusedOptimizer)
        return float(norm) / self._scale_in_step if scaled else float(norm)

    @property
    def loss_scale(self) -> float:
        """The fp16 loss scale; 1 in other precisions."""
        return float(self.engine.optimizer.loss_scale) if self.engine.fp16_enabled() else 1.0

    @property
    def learning_rate(self) -> float:
        return float(self.engine.get_lr()[0])

    @torch.no_grad()
    def predict(self, inputs: tuple[Tensor, ...]) -> Tensor:
        """The network's prediction (B, C, T, H, W) float32 for `(noised, timestep[, condition])`, on every
        rank. All data ranks must pass the same number of samples; B need not be the micro-batch size."""
        placed = tuple(x.to(self.device) for x in (self.sequence.share(inputs[0]), *inputs[1:]))
        if self.pipelined:
            return self.sequence.whole(self._predict_through_stages(placed))
        self.engine.eval()
        prediction: Tensor = self.engine(placed)
        return self.sequence.whole(prediction)

    def _predict_through_stages(self, inputs: tuple[Tensor, ...]) -> Tensor:
        engine = self.engine
        self._expect_other_shapes()
        engine.total_loss = None  # the engine adds this forward's output to it (pipe/engine.py:777)
        noised = inputs[0]
        _, outputs = engine.eval_batch(
            iter([(inputs, noised)]),
            return_logits=True,
            compute_loss=False,
            reduce_output=None,
            num_micro_batches=1,
        )
        self._expect_other_shapes()
        engine.total_loss = None
        # With patches of 1 the last layer's output is a permuted view; a broadcast sends memory as it lies.
        prediction = outputs.contiguous() if engine.is_last_stage() else torch.empty_like(noised)
        last = engine.grid.stage_to_global(engine.num_stages - 1)
        dist.broadcast(prediction, src=last, group=engine.grid.get_pipe_parallel_group())
        return prediction

    def _expect_other_shapes(self) -> None:
        """Receive buffers are of the last micro-batch's shape (pipe/engine.py:1123, 1178): the next one's
        is asked for again. Call between steps, on all ranks alike."""
        self.engine.reset_activation_shape()

    def _before_optimizer_step(self) -> None:
        engine = self.engine
        self._scale_in_step = self.loss_scale
        corrections.mark_split_gradients(engine)
        if not (engine.zero_optimization() or engine.fp16_enabled() or engine.bfloat16_enabled()):
            self._plain_grad_norm = corrections.fp32_grad_norm(engine)
            if self.pipelined:
                corrections.clip_across_stages(engine, self._plain_grad_norm)

    def _instrument_pipeline(self) -> None:
        """Replaces two of this engine's instruction handlers (PipelineEngine._INSTRUCTION_MAP)."""

        def optimizer_step(engine: Any, lr_kwargs: Any = None) -> None:
            self._before_optimizer_step()
            engine._exec_optimizer_step(lr_kwargs)

        self.engine._INSTRUCTION_MAP = {
            **self.engine._INSTRUCTION_MAP,
            schedule.OptimizerStep: optimizer_step,
            schedule.BackwardPass: corrections.backward_pass,
        }


def build_engine(ds_config: Mapping[str, Any], model: Vdt, geometry: Geometry, seed: int) -> TrainingEngine:
    """Builds this rank's part of the model and DeepSpeed's engine around it.

    Reads `pipeline.stages`, `pipeline.partition`, `pipeline.activation_checkpoint_interval`, where stages
    have intervals of their own `pipeline.stage_checkpoint_intervals`, `pipeline.plain_layers`,
    `pipeline.selective_layers`, `pipeline.compress_activations`, `pipeline.offload_activations`,
    `pipeline.tensor_parallel_size`, `pipeline.sequence_parallel_size` and the section `vdsgen`; everything
    else in `ds_config` is DeepSpeed's own. Collective. Raises VdsgenError where the config contradicts the
    model or the number of ranks.
    """
    section = ds_config.get("pipeline", {})
    stages, tensor = int(section.get("stages", 1)), int(section.get("tensor_parallel_size", 1))
    sharing = int(section.get("sequence_parallel_size", 1))
    intervals = stage_intervals(section, stages)
    offload = ActivationOffload() if section.get("offload_activations", False) else None
    if offload is not None and not any(intervals):
        raise VdsgenError(
            "pipeline.offload_activations needs checkpointing: what checkpoints keep is offloaded",
            remedy="set pipeline.activation_checkpoint_interval to 1 or more",
        )
    codec = activation_codec(section, intervals)
    layers = model.depth + 2
    partition = list(section.get("partition", [0, layers]))
    if len(partition) != stages + 1:
        raise VdsgenError(f"pipeline.partition {partition} needs {stages + 1} entries for {stages} stages")
    check_partition(partition, layers)
    plain = plain_layers(section, partition, intervals)
    selective = selective_layers(section, partition, intervals, plain)
    zero = ds_config.get("zero_optimization", {})
    compressed = compression_of(ds_config)
    compression.check_reduces_once(
        refusal(compressed, zero.get("stage", 0), optimizer_is_offloaded=_is_offloaded(zero))
    )
    init_distributed()
    topology = _topology(stages, tensor, sharing)
    ranks = TensorRanks(tensor, dist.get_rank() % tensor)
    sequence = SequenceRanks(sharing, dist.get_rank() // tensor % sharing)
    specs = layer_specs(model, geometry, seed, ranks, sequence)
    grid = None
    config = dict(ds_config)
    if sharing > 1:
        # Each of a sample's ranks counts as a data-parallel rank of the engine's, with a sample of its own.
        config["train_batch_size"] = sharing * ds_config["train_batch_size"]
    _bind_sequence(sequence, tensor)
    if stages > 1:
        planned = PlannedPipelineModule(
            specs, partition, intervals, diffusion_loss, topology, offload, plain, selective, codec
        )
        ranks.bind(planned.mpu().get_slice_parallel_group())
        # The engine puts its config's interval in the module's place (runtime/pipe/engine.py:214).
        own = {"activation_checkpoint_interval": planned.activation_checkpoint_interval}
        config["pipeline"] = {**section, **own}
        module: torch.nn.Module = planned
    else:
        if topology is not None:
            grid = PipelineParallelGrid(topology)
            ranks.bind(grid.get_slice_parallel_group())
        stage_3 = zero.get("stage", 0) == 3
        with deepspeed.zero.Init(
            data_parallel_group=None if grid is None else grid.get_data_parallel_group(),
            config_dict_or_path=config,
            enabled=stage_3,
            mpu=grid,
        ):
            module = SequentialModel(
                specs, intervals[0], diffusion_loss, offload, plain[0], selective[0], codec
            )
    trainable = [parameter for parameter in module.parameters() if parameter.requires_grad]
    engine, *_ = deepspeed.initialize(model=module, model_parameters=trainable, config=config, mpu=grid)
    return TrainingEngine(engine, compressed, sequence)


def _topology(stages: int, tensor: int, sequence: int) -> PipeModelDataParallelTopology | None:
    """Stages x data x tensor ranks, neighbours sharing blocks; None without tensor parallelism.

    DeepSpeed's axes are (pipe, data, model), the last innermost (runtime/pipe/topology.py:243); ranks that
    share samples are neighbours on its data axis.
    """
    world = dist.get_world_size()
    if world % (stages * tensor * sequence):
        needed = f"pipeline.stages ({stages})"
        for name, size in (("tensor", tensor), ("sequence", sequence)):
            needed += f" x pipeline.{name}_parallel_size ({size})" if size > 1 else ""
        raise VdsgenError(f"{needed} must divide the number of ranks ({world})")
    if tensor == 1:
        return None
    return PipeModelDataParallelTopology(num_pp=stages, num_mp=tensor, num_dp=world // stages // tensor)


def _bind_sequence(sequence: SequenceRanks, tensor: int) -> None:
    """Makes every group of ranks that share samples: each has to be made on all ranks."""
    if sequence.size == 1:
        return
    together = sequence.size * tensor
    for start in range(0, dist.get_world_size(), together):
        for first in range(start, start + tensor):
            members = list(range(first, start + together, tensor))
            group = dist.new_group(members)
            if dist.get_rank() in members:
                sequence.bind(group)


def stage_intervals(section: Mapping[str, Any], stages: int) -> tuple[int, ...]:
    """The checkpoint interval of each stage, by a `pipeline` section. Raises VdsgenError unless there are as
    many as stages."""
    same = int(section.get("activation_checkpoint_interval", 0))
    own = section.get("stage_checkpoint_intervals") or [same] * stages
    if len(own) != stages:
        raise VdsgenError(f"pipeline.stage_checkpoint_intervals {own} needs {stages} entries, one a stage")
    return tuple(int(interval) for interval in own)


def plain_layers(
    section: Mapping[str, Any], partition: Sequence[int], intervals: Sequence[int]
) -> tuple[int, ...]:
    """How many of each stage's last layers keep their activations, by a `pipeline` section. Raises
    VdsgenError unless there is one number a stage, and each leaves a layer to recompute; 0 where none is."""
    own = tuple(int(count) for count in section.get("plain_layers") or [0] * len(intervals))
    if len(own) != len(intervals):
        raise VdsgenError(f"pipeline.plain_layers {list(own)} needs {len(intervals)} entries, one a stage")
    for stage, (count, interval) in enumerate(zip(own, intervals, strict=True)):
        held = partition[stage + 1] - partition[stage]
        if count < 0 or count > (held - 1 if interval else 0):
            raise VdsgenError(
                f"pipeline.plain_layers {list(own)}: stage {stage} has {held} layers and "
                f"checkpoint interval {interval}",
                remedy="leave a layer to recompute, or set the stage's checkpoint interval and this to 0",
            )
    return own


def activation_codec(section: Mapping[str, Any], intervals: Sequence[int]) -> Codec | None:
    """What packs checkpointed activations, by a `pipeline` section; None where nothing does. Raises
    VdsgenError where nothing is checkpointed, or what is goes to host memory as it is."""
    kind = section.get("compress_activations", "none")
    if kind == "none":
        return None
    if kind not in DTYPES:
        known = ", ".join(sorted(DTYPES))
        raise VdsgenError(f"pipeline.compress_activations is {kind!r}, not one of {known} or none")
    if not any(intervals):
        raise VdsgenError(
            "pipeline.compress_activations needs checkpointing: what checkpoints keep is packed",
            remedy="set pipeline.activation_checkpoint_interval to 1 or more",
        )
    if section.get("offload_activations", False):
        raise VdsgenError(
            "pipeline.compress_activations packs what pipeline.offload_activations moves to host memory",
            remedy="leave out one of the two",
        )
    return Codec(kind)


def selective_layers(
    section: Mapping[str, Any], partition: Sequence[int], intervals: Sequence[int], plain: Sequence[int]
) -> tuple[int, ...]:
    """How many of each stage's layers, the last before its plain ones, keep their products where they are
    recomputed, by a `pipeline` section. Raises VdsgenError unless there is one number a stage, of layers that
    the stage recomputes; 0 where none does."""
    own = tuple(int(count) for count in section.get("selective_layers") or [0] * len(intervals))
    if len(own) != len(intervals):
        raise VdsgenError(
            f"pipeline.selective_layers {list(own)} needs {len(intervals)} entries, one a stage"
        )
    for stage, (count, interval) in enumerate(zip(own, intervals, strict=True)):
        recomputed = partition[stage + 1] - partition[stage] - plain[stage] if interval else 0
        if not 0 <= count <= recomputed:
            raise VdsgenError(
                f"pipeline.selective_layers {list(own)}: stage {stage} recomputes {recomputed} layers",
                remedy="make each at most what its stage recomputes: its layers without the plain ones, "
                "and none where its checkpoint interval is 0",
            )
    return own


def _is_offloaded(zero: Mapping[str, Any]) -> bool:
    device: str = (zero.get("offload_optimizer") or {}).get("device", "none")
    return device != "none"
