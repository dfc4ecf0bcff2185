"""The weights of a checkpoint by name, whatever layout of ranks wrote it, read one at a time.

Names are the training module's: the layer's number, then the layer's own. DeepSpeed's files (0.19.8, below
deepspeed/runtime) are mapped into memory, not read, and unpickled without running code: `weights_only`, with
a few of DeepSpeed's classes allowed (safe_loading.py).
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from vdsgen.errors import VdsgenError
from vdsgen.spec.checkpoints import CheckpointRecord

LAYER_FILE = re.compile(r"layer_(\d+)(?:-model_(\d+))?-model_states\.pt")
"""Of a layer, or of a tensor-parallel rank's share of it (pipe/module.py:592)."""
AVERAGE_FILE = re.compile(r"ema_rank_(\d+)\.pt")


@dataclass(frozen=True, slots=True)
class Stored:
    """One tensor that can be read."""

    shape: tuple[int, ...]
    dtype: torch.dtype
    """That `read` gives."""
    read: Callable[[], Tensor]

    @property
    def size_bytes(self) -> int:
        return math.prod(self.shape) * self.dtype.itemsize


Weights = Mapping[str, Stored]


def trained_weights(folder: Path, record: CheckpointRecord, tensor_rank: int = 0) -> dict[str, Stored]:
    """What the engine trained, in its own precision; of ranks that share each block, what this one holds.
    Raises VdsgenError where it cannot be read."""
    layer_files = sorted(name for name in record.files if _is_layer_of(name, tensor_rank))
    if layer_files:
        return {name: one for file in layer_files for name, one in _layer_of_pipeline(folder / file)}
    if record.layout.zero_stage == 3:
        return _of_zero_3(folder, record, tensor_rank)
    module = load(folder / f"mp_rank_{tensor_rank:02d}_model_states.pt")["module"]
    return {name: _held(tensor) for name, tensor in module.items()}


def averaged_weights(folder: Path, record: CheckpointRecord, tensor_rank: int = 0) -> dict[str, Stored]:
    """Averages (EMA) of trained parameters, fp32. Raises VdsgenError where there are none."""
    ranks = record.layout.tensor_parallel_size
    found = {name: match for name in sorted(record.files) if (match := AVERAGE_FILE.fullmatch(name))}
    if not found:
        raise VdsgenError(
            f"{folder} has no averaged weights",
            remedy="leave out --ema, or train with training.ema in the experiment",
        )
    shapes: dict[str, list[int]] = {}
    parts: dict[str, list[tuple[Tensor, int, int, int]]] = {}
    for name, match in found.items():
        if int(match[1]) % ranks != tensor_rank:  # neighbours share blocks
            continue
        state = load(folder / name)
        shapes |= state["shapes"]
        for average, slices in zip(state["averages"], state["slices"], strict=True):
            for parameter, start, at, length in slices:
                parts.setdefault(parameter, []).append((average, start, at, length))
    return {name: _put_together(name, tuple(shape), parts[name]) for name, shape in shapes.items()}


def in_dtype(weights: Weights, like: Weights) -> dict[str, Stored]:
    """The same, rounded to the precision that `like` has them in."""
    return {name: _cast(one, like[name].dtype) for name, one in weights.items()}


def load(path: Path) -> Any:
    """A file of a checkpoint. Raises VdsgenError where it is missing, damaged, or would run code."""
    from vdsgen.model.safe_loading import ALLOWED, refusal

    if not path.is_file():  # whoever opens a pipe waits
        raise VdsgenError(f"{path} cannot be read: it is no regular file, or missing")
    try:
        with torch.serialization.safe_globals(list(ALLOWED)):
            return torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except Exception as error:  # torch raises what the file makes it raise
        raise refusal(path, error) from error


def _is_layer_of(name: str, tensor_rank: int) -> bool:
    found = LAYER_FILE.fullmatch(name)
    return found is not None and int(found[2] or 0) == tensor_rank


def _layer_of_pipeline(path: Path) -> Iterator[tuple[str, Stored]]:
    """Of a stage's file for one layer (pipe/module.py:607), which has the layer's own names."""
    found = LAYER_FILE.fullmatch(path.name)
    assert found is not None
    for name, tensor in load(path).items():
        yield f"{int(found[1])}.{name}", _held(tensor)


def _held(tensor: Tensor) -> Stored:
    return Stored(tuple(tensor.shape), tensor.dtype, lambda: tensor)


def _cast(one: Stored, dtype: torch.dtype) -> Stored:
    return Stored(one.shape, dtype, lambda: one.read().to(dtype))


def _put_together(name: str, shape: tuple[int, ...], parts: list[tuple[Tensor, int, int, int]]) -> Stored:
    """`parts` are (tensor, first element of the parameter, first of the tensor, length)."""
    if sum(length for *_, length in parts) != math.prod(shape):
        raise VdsgenError(f"the checkpoint's ranks together do not hold all of {name}")

    def read() -> Tensor:
        whole = torch.empty(math.prod(shape), dtype=parts[0][0].dtype)
        for tensor, start, at, length in parts:
            whole[start : start + length] = tensor[at : at + length]
        return whole.view(shape)

    return Stored(shape, parts[0][0].dtype, read)


def _of_zero_3(folder: Path, record: CheckpointRecord, tensor_rank: int) -> dict[str, Stored]:
    """Trained parameters from the fp32 weights of each rank's optimizer, one parameter's share after another
    (zero/stage3.py, FP32_FLAT_GROUPS; checkpoint's param_shapes has their order); frozen ones from shares of
    their own. Both rounded to the model's precision, as the engine's weights are."""
    models, states = zero_3_files(folder, record, tensor_rank)
    dtype = next(iter(models[0]["module"].values())).dtype
    groups = [state["optimizer_state_dict"]["fp32_flat_groups"] for state in states]
    found: dict[str, Stored] = {}
    for name, shape, group, at, share in zero_3_places(models[0], groups[0], len(models)):
        found[name] = _cast(_of_shares(name, shape, [own[group][at : at + share] for own in groups]), dtype)
    for name in models[0]["buffer_names"]:
        found[name] = _held(models[0]["module"][name])
    for name, shape in (models[0]["frozen_param_shapes"] or {}).items():
        shares = [model["frozen_param_fragments"][name] for model in models]
        found[name] = _cast(_of_shares(name, tuple(shape), shares), dtype)
    return found


def zero_3_files(folder: Path, record: CheckpointRecord, tensor_rank: int) -> tuple[list[Any], list[Any]]:
    """What each data rank saved of the model, and of the optimizer."""
    models, states = (
        [
            load(_only(folder, f"*zero_pp_rank_{rank}_mp_rank_{tensor_rank:02d}_{kind}_states.pt"))
            for rank in range(record.layout.sequence_data_parallel_size)
        ]
        for kind in ("model", "optim")
    )
    return models, states


def zero_3_places(
    model: Mapping[str, Any], groups: Sequence[Tensor], ranks: int
) -> Iterator[tuple[str, tuple[int, ...], int, int, int]]:
    """(name, shape, group, first element in it, elements) of each trained parameter's share, which lies in
    the same place on every rank."""
    shapes = {name: tuple(shape) for group in model["param_shapes"] for name, shape in group.items()}
    group, at = 0, 0
    for name, shape in shapes.items():
        share = -(-math.prod(shape) // ranks)
        if at + share > groups[group].numel():
            group, at = group + 1, 0
        yield name, shape, group, at, share
        at += share


def _of_shares(name: str, shape: tuple[int, ...], shares: list[Tensor]) -> Stored:
    """Equal shares of a flat parameter, the last ones padded."""
    total, parts, start = math.prod(shape), [], 0
    for share in shares:
        length = min(share.numel(), total - start)
        if length > 0:
            parts.append((share, start, 0, length))
        start += length
    return _put_together(name, shape, parts)


def _only(folder: Path, pattern: str) -> Path:
    found = sorted(folder.glob(pattern))
    if len(found) != 1:
        raise VdsgenError(f"{folder} has {len(found)} files {pattern}, should have one")
    return found[0]
