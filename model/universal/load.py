"""Puts a universal checkpoint into a built engine, whatever its layout and its optimizer.

DeepSpeed's own loader (`checkpoint.load_universal`, runtime/base_optimizer.py:332) reads the same files, but
only for optimizers that share states out, without frozen weights and 8-bit moments; it runs code that a file
may hold, and reads every parameter whole on every rank. Here each rank reads the stretches that it keeps.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from deepspeed import comm as dist
from deepspeed.ops.adam import DeepSpeedCPUAdam
from deepspeed.runtime.fp16.unfused_optimizer import FP16_UnfusedOptimizer
from torch import Tensor

from vdsgen.errors import VdsgenError
from vdsgen.model.adamw_8bit import AdamW8bit
from vdsgen.model.console import say_first
from vdsgen.model.engine import TrainingEngine
from vdsgen.model.export.stored import load
from vdsgen.model.layers.tensor_parallel import Split, TensorRanks, split_of
from vdsgen.model.masters import (
    Slice,
    base_optimizer,
    slices_of,
    stepped_tensors,
    weights_from_masters,
)
from vdsgen.model.universal.states import MOMENTS, WEIGHT
from vdsgen.spec.universal import AVERAGES, PARAMETERS, PROGRESS, Progress


def load_universal(engine: TrainingEngine, folder: Path) -> Progress:
    """The engine goes on from where the checkpoint was saved. Collective. Raises VdsgenError where the model
    has other parameters than the checkpoint, or a file cannot be read."""
    progress = Progress.model_validate_json((folder / PROGRESS).read_bytes())
    inner = engine.engine
    if inner.zero_nvme_offload_optimizer():
        raise VdsgenError(
            "checkpoints of another layout cannot be resumed into states that are offloaded to NVMe",
            remedy="plan with constraints.offload_optimizer: cpu or none",
        )
    stored = _Parameters(folder, inner)
    with _partitioned(inner):
        _load_trained(inner, stored, progress)
        _load_others(inner, stored)
    weights_from_masters(inner)
    _load_counters(engine, progress)
    _load_average(engine, stored, progress)
    dist.barrier()
    return progress


class _Parameters:
    """Reads of the checkpoint what this rank's layers have: of parameters that tensor ranks share, its
    part."""

    def __init__(self, folder: Path, engine: Any) -> None:
        self.folder = folder
        named = dict(engine.module.named_parameters())
        self._splits = {name: split for name, one in named.items() if (split := split_of(one)) is not None}
        self._ranks = TensorRanks()
        if self._splits:
            mpu = engine.mpu
            self._ranks = TensorRanks(mpu.get_slice_parallel_world_size(), mpu.get_slice_parallel_rank())
        self._shapes = {name: tuple(getattr(one, "ds_shape", one.shape)) for name, one in named.items()}

    def has(self, name: str, key: str) -> bool:
        return self._path(name, key).is_file()

    def flat(self, name: str, key: str) -> Tensor:
        """(n,), mapped from the file. Raises VdsgenError where it is not there or of another shape."""
        path = self._path(name, key)
        if not path.is_file():
            raise VdsgenError(
                f"the model's parameter {name} is not in the checkpoint",
                remedy="resume with the model that the run was started with",
            )
        found: Tensor = load(path)["param"]
        split: Split | None = self._splits.get(name)
        if split is not None:
            found = split.share(found, self._ranks)
        expected = self._shapes.get(name, tuple(found.shape))
        if tuple(found.shape) != expected:
            raise VdsgenError(
                f"the checkpoint's {name} has shape {list(found.shape)}, the model's {list(expected)}",
                remedy="resume with the model that the run was started with",
            )
        return found.reshape(-1)

    def _path(self, name: str, key: str) -> Path:
        if key == AVERAGES:
            return self.folder / AVERAGES / f"{name}.pt"
        return self.folder / PARAMETERS / name / f"{key}.pt"

    def fill(self, flat: Tensor, slices: Sequence[Slice], key: str) -> None:
        """`flat` (n,) gets the stretches that `slices` say."""
        for name, start, at, length in slices:
            flat[at : at + length].copy_(self.flat(name, key)[start : start + length])


@torch.no_grad()
def _load_trained(engine: Any, stored: _Parameters, progress: Progress) -> None:
    optimizer = base_optimizer(engine)
    for master, slices in zip(stepped_tensors(engine), slices_of(engine), strict=True):
        flat = master.detach().view(-1)
        stored.fill(flat, slices, WEIGHT)
        if progress.optimizer_steps == 0:
            continue
        moments = [torch.zeros(flat.numel(), dtype=torch.float32, device=flat.device) for _ in MOMENTS]
        for key, moment in zip(MOMENTS, moments, strict=True):
            stored.fill(moment, slices, key)
        _set_moments(optimizer, master, moments, progress.optimizer_steps)


def _set_moments(optimizer: Any, master: Tensor, moments: Sequence[Tensor], steps: int) -> None:
    if isinstance(optimizer, AdamW8bit):
        first, second = moments
        optimizer.set_moments(master, first, second, steps)
        return
    state = optimizer.state[master]
    for key, moment in zip(MOMENTS, moments, strict=True):
        state[key] = moment.view(master.shape)
    if isinstance(optimizer, DeepSpeedCPUAdam):
        state["step"] = steps
        return
    # As torch.optim.AdamW begins it: fused kernels count on their own device.
    device = master.device if optimizer.param_groups[0].get("fused") else "cpu"
    state["step"] = torch.tensor(float(steps), dtype=torch.float32, device=device)


@torch.no_grad()
def _load_others(engine: Any, stored: _Parameters) -> None:
    """Frozen weights, and buffers that checkpoints keep."""
    for name, parameter in engine.module.named_parameters():
        if parameter.requires_grad:
            continue
        flat = stored.flat(name, WEIGHT)
        if hasattr(parameter, "ds_tensor"):
            share = parameter.partition_numel()
            rank = dist.get_rank(group=parameter.ds_process_group)
            flat = flat[rank * share : (rank + 1) * share]
            parameter.ds_tensor.view(-1)[: flat.numel()].copy_(flat)
        else:
            parameter.data.view(-1).copy_(flat)
    for name, buffer in engine.module.named_buffers():
        if stored.has(name, WEIGHT):
            buffer.copy_(stored.flat(name, WEIGHT).view(buffer.shape))


@contextmanager
def _partitioned(engine: Any) -> Iterator[None]:
    """Inside, ZeRO-3 has gathered no parameter (as DeepSpeed loads, runtime/engine.py:4443)."""
    begin = getattr(engine.optimizer, "checkpoint_event_prologue", None)
    end = getattr(engine.optimizer, "checkpoint_event_epilogue", None)
    if begin is not None:
        begin()
    yield
    if end is not None:
        end()


def _load_counters(engine: TrainingEngine, progress: Progress) -> None:
    """As DeepSpeed sets them (runtime/engine.py:4711)."""
    inner = engine.engine
    inner.global_steps = progress.step
    inner.global_samples = progress.samples
    inner.skipped_steps = progress.skipped_steps
    if inner.lr_scheduler is not None:
        inner.lr_scheduler.load_state_dict(_schedule_state(inner.lr_scheduler, progress))
    if inner.fp16_enabled():
        _load_loss_scaling(inner.optimizer, progress.loss_scaling)


def _schedule_state(scheduler: Any, progress: Progress) -> Mapping[str, Any]:
    """Where the schedule is another one than the checkpoint's, it goes on from the steps that were taken:
    DeepSpeed's count from -1 (runtime/lr_schedules.py), ours from 0."""
    wanted = scheduler.state_dict()
    if wanted.keys() == progress.schedule.keys():
        return progress.schedule
    taken = progress.step - progress.skipped_steps
    counts = {"last_batch_iteration": taken - 1, "steps_taken": taken}
    return {**wanted, **{key: count for key, count in counts.items() if key in wanted}}


def _load_loss_scaling(optimizer: Any, saved: Mapping[str, float]) -> None:
    """Between the two kinds of scaler that DeepSpeed has for fp16; one that has just begun stays."""
    unshared = isinstance(optimizer, FP16_UnfusedOptimizer)
    scaler = optimizer.loss_scale_config if unshared else optimizer.loss_scaler
    for key, value in saved.items():
        if hasattr(scaler, key):
            setattr(scaler, key, value)


@torch.no_grad()
def _load_average(engine: TrainingEngine, stored: _Parameters, progress: Progress) -> None:
    average = engine.average
    if average is None:
        return
    if progress.average_steps is None:
        average.restore(None)
        say_first("warning: the checkpoint has no averaged weights (EMA): their average starts there")
        return
    filled = [torch.zeros_like(tensor) for tensor in average.tensors]
    for flat, slices in zip(filled, slices_of(engine.engine), strict=True):
        stored.fill(flat, slices, AVERAGES)
    average.restore({"averages": filled, "steps": progress.average_steps})
