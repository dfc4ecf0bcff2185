"""DeepSpeed's engine around the model: one face for the pipelined and the plain one."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any

import deepspeed
import torch
from deepspeed import comm as dist
from deepspeed.accelerator import get_accelerator
from deepspeed.runtime.fp16.unfused_optimizer import FP16_UnfusedOptimizer
from deepspeed.runtime.pipe import schedule
from deepspeed.runtime.pipe.engine import PipelineEngine
from deepspeed.runtime.pipe.topology import PipelineParallelGrid, PipeModelDataParallelTopology
from torch import Tensor

from vdsgen.errors import VdsgenError
from vdsgen.model import compression, corrections
from vdsgen.model.adamw_8bit import AdamW8bit
from vdsgen.model.distributed import init_distributed
from vdsgen.model.ema import WeightAverage
from vdsgen.model.exchanged_shapes import ExchangedShapes
from vdsgen.model.layers.sequence_parallel import WHOLE, SequenceRanks
from vdsgen.model.layers.tensor_parallel import TensorRanks
from vdsgen.model.metrics import DivergedError
from vdsgen.model.monitoring.instruments import Instruments
from vdsgen.model.monitoring.where import first_finding
from vdsgen.model.pipeline import (
    LossFunction,
    PlannedPipelineModule,
    SequentialModel,
    Target,
)
from vdsgen.model.stage_settings import stage_settings
from vdsgen.model.trained import trained
from vdsgen.spec.architecture import Geometry, Vdt
from vdsgen.spec.compression import compression_of, refusal
from vdsgen.spec.geometry import TrainedModel
from vdsgen.spec.plan import GradientCompression
from vdsgen.spec.run import dtype_of
from vdsgen.spec.trainer_section import SECTION, STATE_DTYPE, ema_of, quantises_moments
from vdsgen.spec.training import Ema, Lora

NO_SMALLER_SCALE = "Current loss scale already at minimum"

Batch = tuple[tuple[Tensor, ...], Any]
"""(the first layer's inputs, what the loss takes: `Target`) of one micro-batch, on any device."""


class TrainingEngine:
    """What the trainer and the sampler call. Every method is collective: call it on all ranks alike."""

    compressor: compression.GradientCompressor | None
    """Averages gradients in int8, where the config asks for it."""
    average: WeightAverage | None
    """The weights' average over steps, where the config asks for it."""

    def __init__(
        self,
        engine: Any,
        gradient_compression: GradientCompression = "none",
        sequence: SequenceRanks = WHOLE,
        ema: Ema | None = None,
        losses_of_samples: LossFunction | None = None,
    ) -> None:
        self.engine = engine
        self._losses_of_samples = losses_of_samples
        self.sequence = sequence
        self.pipelined = isinstance(engine, PipelineEngine)
        self._plain_grad_norm: float | None = None
        self._scale_in_step = 1.0
        corrections.forget_initial_step(engine)
        self.compressor = None
        if gradient_compression != "none":
            self.compressor = compression.install(engine, lambda: self.loss_scale)
        if self.pipelined:
            self._shapes = ExchangedShapes(engine)
            self._instrument_pipeline()
        self.instruments = Instruments(engine)
        self.average = None if ema is None else WeightAverage(engine, ema)

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

    def train_step(self, batches: Iterator[Batch], sizes: Sequence[int] = (0,)) -> float:
        """One optimizer step; takes gradient_accumulation_steps micro-batches from `batches` where
        `needs_data`, `own_rows` of them. Returns the mean loss over the global batch, the same on every rank:
        each sample has the same weight, whatever its size.

        `sizes` tells the sizes of clips apart (their places in `Data.sizes`): one for the whole step or one a
        micro-batch, and the same on every rank.

        Raises DivergedError where fp16 overflows and the loss scale can shrink no more."""
        try:
            with self.instruments.step():
                loss = self._train_step(batches, sizes)
                if self.average is not None:
                    with self.instruments.during("optimizer", "WeightAverage"):
                        self.average.after_step()
                get_accelerator().synchronize()
                return loss
        except Exception as error:
            # On all ranks alike, and as nothing but an Exception (runtime/fp16/loss_scaler.py:151).
            if NO_SMALLER_SCALE not in str(error):
                raise
            found = first_finding(self.instruments.layers, self.device)
            where = "" if found is None else f", first at layer {found.layer} (rank {found.rank})"
            raise DivergedError(
                f"fp16 gradients overflow at the smallest loss scale ({self.loss_scale:g}){where}: "
                "training has diverged",
                remedy="train in bf16 or fp32, or lower training.optimizer.learning_rate; --resume continues "
                "from the last checkpoint",
            ) from error

    def _train_step(self, batches: Iterator[Batch], sizes: Sequence[int]) -> float:
        if self.pipelined:
            self._shapes.step_begins(sizes)
            return float(self.engine.train_batch(data_iter=batches))
        self.engine.train()
        total = torch.zeros((), dtype=torch.float32, device=self.device)
        steps = self.engine.gradient_accumulation_steps()
        during = self.instruments.during
        for micro_batch in range(steps):
            with during("data", f"LoadMicroBatch {micro_batch}"):
                inputs, target = next(batches)
                placed, wanted = self._placed(inputs), self._placed(target)
            with during("forward", f"ForwardPass {micro_batch}"):
                loss = self.engine(placed, wanted)
            with during("backward", f"BackwardPass {micro_batch}"):
                self.engine.backward(corrections.scaled_loss(self.engine, loss))
            with during("optimizer", f"OptimizerStep {micro_batch}"):
                if self.engine.is_gradient_accumulation_boundary():
                    self._before_optimizer_step()
                self.engine.step()
            total += loss.detach()
        total /= steps
        dist.all_reduce(total, group=self.engine.data_parallel_group)
        return float(total / self.engine.dp_world_size)

    def own_rows(self, batch: Batch) -> Batch:
        """Of whole clips, this rank's rows: what it trains on."""
        if self.sequence.size == 1:
            return batch
        (noised, *others), target = batch
        assert isinstance(target, Tensor), "models of diffusers share no clips"
        return (self.sequence.share(noised), *others), self.sequence.share(target)

    def _placed(self, tensors: Any) -> Any:
        if isinstance(tensors, Tensor):
            return tensors.to(self.device)
        return tuple(x.to(self.device) for x in tensors)

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

    def averaged(self) -> AbstractContextManager[None]:
        """Inside, the model's weights are their average, where one is kept. Nothing may be trained there."""
        return nullcontext() if self.average is None else self.average.in_place()

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

    @torch.no_grad()
    def sample_losses(self, batches: Iterator[Batch], micro_batches: int) -> list[Tensor]:
        """(B,) float32 for each of `micro_batches` from `batches`: every sample's loss, of the rows that this
        rank has. Empty but where the loss is computed, on a pipeline's last stage.

        All data ranks must pass equally many; `batches` are read where `needs_data`. Nothing is trained."""
        found: list[Tensor] = []

        assert self._losses_of_samples is not None, "built by build_engine"
        losses_of_samples = self._losses_of_samples

        def noting(prediction: Tensor, target: Target) -> Tensor:
            found.append(losses_of_samples(prediction, target))
            return found[-1].mean()

        if self.pipelined:
            self._losses_through_stages(batches, micro_batches, noting)
            return found
        self.engine.eval()
        for _ in range(micro_batches):
            inputs, target = next(batches)
            noting(self.engine(self._placed(inputs)), self._placed(target))
        return found

    def _losses_through_stages(
        self, batches: Iterator[Batch], micro_batches: int, loss: LossFunction
    ) -> None:
        """With `loss` in the place of the training loss."""
        engine = self.engine
        self._shapes.forget()
        engine.total_loss = None
        trained, engine.module.loss_fn = engine.module.loss_fn, loss
        try:
            with self._untold():
                engine.eval_batch(batches, num_micro_batches=micro_batches, bcast_loss=False)
        finally:
            engine.module.loss_fn = trained
        self._shapes.forget()
        engine.total_loss = None  # as after predicting

    def _predict_through_stages(self, inputs: tuple[Tensor, ...]) -> Tensor:
        engine = self.engine
        self._shapes.forget()
        engine.total_loss = None  # the engine adds this forward's output to it (pipe/engine.py:777)
        noised = inputs[0]
        with self._untold():
            _, outputs = engine.eval_batch(
                iter([(inputs, noised)]),
                return_logits=True,
                compute_loss=False,
                reduce_output=None,
                num_micro_batches=1,
            )
        self._shapes.forget()
        engine.total_loss = None
        return self._from_last_stage(outputs if engine.is_last_stage() else None)

    @contextmanager
    def _untold(self) -> Iterator[None]:
        """DeepSpeed's monitors hear nothing: the engine would tell them a loss even where none is computed
        (pipe/engine.py:472)."""
        monitor = self.engine.monitor
        enabled, monitor.enabled = monitor.enabled, False
        try:
            yield
        finally:
            monitor.enabled = enabled

    def _from_last_stage(self, outputs: Tensor | None) -> Tensor:
        """The prediction (B, C, T, H, W) float32 on every stage; its channels need not be the input's."""
        engine = self.engine
        where: dict[str, Any] = {
            "src": engine.grid.stage_to_global(engine.num_stages - 1),
            "group": engine.grid.get_pipe_parallel_group(),
        }
        known = [0] * 5 if outputs is None else list(outputs.shape)
        shape = torch.tensor(known, device=self.device)
        dist.broadcast(shape, **where)
        # With patches of 1 the last layer's output is a permuted view; a broadcast sends memory as it lies.
        if outputs is None:
            prediction = torch.empty(shape.tolist(), device=self.device)
        else:
            prediction = outputs.contiguous()
        dist.broadcast(prediction, **where)
        return prediction

    def _before_optimizer_step(self) -> None:
        engine = self.engine
        self._scale_in_step = self.loss_scale
        corrections.mark_split_gradients(engine)
        if not (engine.zero_optimization() or engine.fp16_enabled() or engine.bfloat16_enabled()):
            self._plain_grad_norm = corrections.fp32_grad_norm(engine)
            if self.pipelined:
                corrections.clip_across_stages(engine, self._plain_grad_norm)

    def _instrument_pipeline(self) -> None:
        """Replaces some of this engine's instruction handlers (PipelineEngine._INSTRUCTION_MAP)."""

        def optimizer_step(engine: Any, lr_kwargs: Any = None) -> None:
            self._before_optimizer_step()
            engine._exec_optimizer_step(lr_kwargs)

        self.engine._INSTRUCTION_MAP = {
            **self.engine._INSTRUCTION_MAP,
            schedule.OptimizerStep: optimizer_step,
            schedule.BackwardPass: corrections.backward_pass,
            **self._shapes.handlers(),
        }


def build_engine(
    ds_config: Mapping[str, Any],
    model: TrainedModel,
    geometry: Geometry,
    seed: int,
    adapters: Lora | None = None,
    start_from: Path | None = None,
) -> TrainingEngine:
    """Builds this rank's part of the model and DeepSpeed's engine around it; with `adapters`, nothing else of
    the model trains. `start_from` is a folder with the weights to begin with.

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
    zero = ds_config.get("zero_optimization", {})
    compressed = compression_of(ds_config)
    compression.check_reduces_once(
        refusal(compressed, zero.get("stage", 0), optimizer_is_offloaded=_is_offloaded(zero))
    )
    if isinstance(model, Vdt):  # before ranks wait for one another; of other models layers are counted below
        stage_settings(section, model.depth + 2)
    init_distributed()
    topology = _topology(stages, tensor, sharing)
    ranks = TensorRanks(tensor, dist.get_rank() % tensor)
    sequence = SequenceRanks(sharing, dist.get_rank() // tensor % sharing)
    specs, loss, losses_of_samples = trained(
        model, geometry, seed, adapters, ranks, sequence, dtype_of(ds_config), start_from
    )
    settings = stage_settings(section, len(specs))
    grid = None
    config = dict(ds_config)
    if sharing > 1:
        # Each of a sample's ranks counts as a data-parallel rank of the engine's, with a sample of its own.
        config["train_batch_size"] = sharing * ds_config["train_batch_size"]
    _bind_sequence(sequence, tensor)
    if stages > 1:
        planned = PlannedPipelineModule(
            specs,
            settings.partition,
            settings.intervals,
            loss,
            topology,
            settings.offload,
            settings.plain,
            settings.selective,
            settings.codec,
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
                specs,
                settings.intervals[0],
                loss,
                settings.offload,
                settings.plain[0],
                settings.selective[0],
                settings.codec,
            )
    trainable = [parameter for parameter in module.parameters() if parameter.requires_grad]
    engine, *_ = deepspeed.initialize(
        model=module,
        model_parameters=trainable,
        config=config,
        mpu=grid,
        optimizer=own_optimizer(ds_config) if quantises_moments(ds_config) else None,
    )
    return TrainingEngine(engine, compressed, sequence, ema_of(ds_config), losses_of_samples)


def own_optimizer(ds_config: Mapping[str, Any]) -> Callable[[Any], torch.optim.Optimizer]:
    """AdamW with moments in int8, with the parameters of the config's own `optimizer`."""
    zero = ds_config.get("zero_optimization", {})
    if _is_offloaded(zero):
        raise VdsgenError(
            f"{SECTION}.{STATE_DTYPE} int8 is not for an offloaded optimizer",
            remedy="set zero_optimization.offload_optimizer.device to none, or leave it out",
        )
    params = ds_config["optimizer"]["params"]
    chosen = {key: params[key] for key in ("lr", "betas", "eps", "weight_decay") if key in params}
    return lambda parameters: AdamW8bit(parameters, **chosen)


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


def _is_offloaded(zero: Mapping[str, Any]) -> bool:
    device: str = (zero.get("offload_optimizer") or {}).get("device", "none")
    return device != "none"
