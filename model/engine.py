"""DeepSpeed's engine around the model: one face for the pipelined and the plain one."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from deepspeed import comm as dist
from deepspeed.accelerator import get_accelerator
from deepspeed.runtime.fp16.unfused_optimizer import FP16_UnfusedOptimizer
from deepspeed.runtime.pipe import schedule
from deepspeed.runtime.pipe.engine import PipelineEngine
from torch import Tensor

from vdsgen.model import compression, corrections
from vdsgen.model.ema import WeightAverage
from vdsgen.model.exchanged_shapes import ExchangedShapes
from vdsgen.model.forward_only import ForwardOnly
from vdsgen.model.heartbeat import HEART
from vdsgen.model.layers.sequence_parallel import WHOLE, SequenceRanks
from vdsgen.model.metrics import DivergedError
from vdsgen.model.monitoring.instruments import Instruments
from vdsgen.model.monitoring.where import first_finding
from vdsgen.model.pipeline import Batch, LossFunction, Target
from vdsgen.spec.plan import GradientCompression
from vdsgen.spec.training import Ema

NO_SMALLER_SCALE = "Current loss scale already at minimum"


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
        corrections.release_before_reduction(engine)
        self.compressor = None
        if gradient_compression != "none":
            self.compressor = compression.install(engine, lambda: self.loss_scale)
        if self.pipelined:
            self._shapes = ExchangedShapes(engine)
            self._forward_only = ForwardOnly(engine, self._shapes)
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
            with during("data", "LoadMicroBatch", f" {micro_batch}"):
                inputs, target = next(batches)
                placed, wanted = self._placed(inputs), self._placed(target)
            with during("forward", "ForwardPass", f" {micro_batch}"):
                loss = self.engine(placed, wanted)
            with during("backward", "BackwardPass", f" {micro_batch}"):
                self.engine.backward(corrections.scaled_loss(self.engine, loss))
            with during("optimizer", "OptimizerStep", f" {micro_batch}"):
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
        HEART.come_on()
        placed = tuple(x.to(self.device) for x in (self.sequence.share(inputs[0]), *inputs[1:]))
        if self.pipelined:
            return self.sequence.whole(self._forward_only.predict(placed))
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
            self._forward_only.losses(batches, micro_batches, noting)
            return found
        self.engine.eval()
        for _ in range(micro_batches):
            inputs, target = next(batches)
            noting(self.engine(self._placed(inputs)), self._placed(target))
        return found

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
