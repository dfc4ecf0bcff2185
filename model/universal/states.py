"""What a checkpoint's optimizer keeps of each parameter, whatever layout of ranks wrote it.

Files are DeepSpeed's (0.19.8, below deepspeed/runtime), mapped into memory and unpickled without running code
(vdsgen.model.export.stored).
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from vdsgen.errors import VdsgenError
from vdsgen.model.adamw_8bit import CODES, PLAIN, moment_of
from vdsgen.model.export.stored import Stored, Weights, load, trained_weights, zero_3_files, zero_3_places
from vdsgen.spec.checkpoints import CheckpointRecord

TRAINED = "vdsgen_trained"
"""In a checkpoint's client state: the names of trained parameters, in the optimizer's order."""
WEIGHT, MOMENTS = "fp32", PLAIN
"""DeepSpeed's names in its universal format."""
OPTIMIZER_FILE = re.compile(r"(?:\w+_)?zero_pp_rank_(\d+)_mp_rank_(\d+)_optim_states\.pt")
MODEL_FILE = re.compile(r"(?:zero_pp_rank_0_)?mp_rank_(\d+)_model_states\.pt")


class Held(NamedTuple):
    """Elements of a parameter that one of the optimizer's flat tensors holds."""

    parameter: str
    start: int
    """First element of the flattened parameter."""
    at: int
    """First element of the tensor."""
    length: int
    weights: Tensor
    """(n,), the fp32 weights."""
    state: Mapping[str, Any]
    """AdamW's; empty before its first step."""


@dataclass(frozen=True, slots=True)
class OptimizerStates:
    """Of one tensor-parallel rank."""

    parameters: Mapping[str, Mapping[str, Stored]]
    """Trained parameters: `fp32`, and from the first step on both of MOMENTS; fp32."""
    steps: int
    """AdamW's."""
    learning_rate: float
    """Of the step that comes next."""
    loss_scaling: Mapping[str, float]
    """The dynamic scaler's state; empty but for fp16."""
    common: Mapping[str, Any]
    """What the engine keeps once: steps, samples and the schedule."""


def optimizer_states(
    folder: Path, record: CheckpointRecord, shapes: Mapping[str, tuple[int, ...]], tensor_rank: int = 0
) -> OptimizerStates:
    """`shapes` has those of this tensor rank's parameters. Raises VdsgenError where a file cannot be read, or
    the files together lack a part."""
    files = _files(folder, record, tensor_rank)
    parts: dict[str, list[Held]] = {}
    for held in files.held:
        if held.length:
            parts.setdefault(held.parameter, []).append(held)
    parameters = {name: _stored(name, shapes[name], held) for name, held in parts.items()}
    states = [held.state for held in files.held if held.state]
    return OptimizerStates(
        parameters=parameters,
        steps=int(states[0]["step"]) if states else 0,
        learning_rate=float(files.groups[0]["lr"]),
        loss_scaling=files.loss_scaling,
        common=files.common,
    )


class _Files(NamedTuple):
    held: Sequence[Held]
    groups: Sequence[Mapping[str, Any]]
    """The optimizer's param_groups."""
    loss_scaling: Mapping[str, float]
    common: Mapping[str, Any]


def _files(folder: Path, record: CheckpointRecord, tensor_rank: int) -> _Files:
    models = _stage_files(record, MODEL_FILE, tensor_rank)
    if not models:
        raise VdsgenError(f"{folder} has no file mp_rank_*_model_states.pt")
    common = load(folder / models[0])
    if record.layout.zero_stage == 3:
        return _of_zero_3(folder, record, tensor_rank, common)
    optimizers = _stage_files(record, OPTIMIZER_FILE, tensor_rank)
    if optimizers:
        return _of_shares(folder, optimizers, common)
    return _of_whole(folder, models, trained_weights(folder, record, tensor_rank), common)


def _stage_files(record: CheckpointRecord, pattern: re.Pattern[str], tensor_rank: int) -> list[str]:
    """By stage, then by data rank. A stage's ranks that share blocks are neighbours among `mp_rank`s."""
    found = []
    for name in record.files:
        match = pattern.fullmatch(name)
        if match and int(match[match.lastindex or 0]) % record.layout.tensor_parallel_size == tensor_rank:
            found.append((tuple(int(number) for number in reversed(match.groups())), name))
    return [name for _, name in sorted(found)]


def _of_zero_3(folder: Path, record: CheckpointRecord, tensor_rank: int, common: Mapping[str, Any]) -> _Files:
    """Each parameter is shared out by itself, the last shares padded (zero/stage3.py, _rigid_state_dict)."""
    models, files = zero_3_files(folder, record, tensor_rank)
    optimizers = [file["optimizer_state_dict"] for file in files]
    bases = [optimizer["optimizer_state_dict"] for optimizer in optimizers]
    held = []
    weights = [optimizer["fp32_flat_groups"] for optimizer in optimizers]
    for name, shape, group, at, share in zero_3_places(models[0], weights[0], len(models)):
        for rank, base in enumerate(bases):
            length = max(0, min(share, math.prod(shape) - rank * share))
            state = base["state"].get(group, {})
            held.append(Held(name, rank * share, at, length, weights[rank][group], state))
    return _Files(held, bases[0]["param_groups"], _loss_scaling(optimizers[0]), common)


def _of_shares(folder: Path, files: Sequence[str], common: Mapping[str, Any]) -> _Files:
    """Data ranks hold equal stretches of all parameters of a stage, one after the other
    (zero/stage_1_and_2.py:3358, bf16_optimizer.py:629)."""
    _refuse_round_robin(folder, common)
    held: list[Held] = []
    behind: dict[str, int] = {}
    """Elements of each parameter that the ranks so far hold."""
    optimizers = [load(folder / name)["optimizer_state_dict"] for name in files]
    for optimizer in optimizers:
        base = optimizer["base_optimizer_state"]
        for group, places in enumerate(optimizer["param_slice_mappings"]):
            state = base["state"].get(group, {})
            weights = optimizer["single_partition_of_fp32_groups"][group]
            for name, place in places.items():
                start = behind.get(name, 0)
                held.append(Held(name, start, place.start, place.numel, weights, state))
                behind[name] = start + place.numel
    groups = optimizers[0]["base_optimizer_state"]["param_groups"]
    return _Files(held, groups, _loss_scaling(optimizers[0]), common)


def _refuse_round_robin(folder: Path, common: Mapping[str, Any]) -> None:
    """Where the engine deals parameters out to ranks in turn (zero/stage_1_and_2.py:901), the places that it
    writes down are those of parameters in their own order (:580): other values would be read."""
    zero = common.get("ds_config", {}).get("zero_optimization", {})
    if zero.get("round_robin_gradients"):
        raise VdsgenError(
            f"{folder} was written with zero_optimization.round_robin_gradients, and says wrong places",
            remedy="resume with the ds_config.json that it had; leave round_robin_gradients out of new runs",
        )


def _of_whole(folder: Path, files: Sequence[str], module: Weights, common: Mapping[str, Any]) -> _Files:
    """Every data rank holds everything: one file a stage (fp16/unfused_optimizer.py:335, or torch's AdamW
    itself), which names no parameter; what trained is in our own client state."""
    held, groups, loss_scaling = [], None, {}
    for file in files:
        saved = load(folder / file)
        if TRAINED not in saved:
            raise VdsgenError(
                f"{folder / file} does not say which parameters its optimizer states are of",
                remedy="resume with the layout of the checkpoint for a step, which saves another one",
            )
        optimizer = saved["optimizer"]
        base = optimizer.get("optimizer_state_dict", optimizer)
        weights = [one for group in optimizer.get("fp32_groups", ()) for one in group]
        if not weights:  # a model in fp32 is its own fp32 weights
            weights = [module[name].read() for name in saved[TRAINED]]
        for index, (name, weight) in enumerate(zip(saved[TRAINED], weights, strict=True)):
            flat = weight.detach().view(-1)
            held.append(Held(name, 0, 0, flat.numel(), flat, base["state"].get(index, {})))
        groups, loss_scaling = base["param_groups"], _loss_scaling(optimizer)
    assert groups is not None, "a checkpoint has a stage"
    return _Files(held, groups, loss_scaling, common)


SCALER = ("cur_scale", "cur_iter", "last_overflow_iter", "cur_hysteresis")
"""What training changes of a dynamic loss scaler."""


def _loss_scaling(optimizer: Mapping[str, Any]) -> dict[str, float]:
    """Of ZeRO's scaler, an object (fp16/loss_scaler.py:193), or of the one without ZeRO, which saves its
    numbers."""
    if not optimizer.get("dynamic_loss_scale"):
        return {}
    scaler = optimizer.get("loss_scaler")
    values = optimizer if scaler is None else vars(scaler)
    return {key: values[key] for key in SCALER if key in values}


def _stored(name: str, shape: tuple[int, ...], parts: Sequence[Held]) -> dict[str, Stored]:
    found = sum(part.length for part in parts)
    if found != math.prod(shape):
        raise VdsgenError(
            f"the checkpoint's ranks together hold {found} elements of {name}, not {math.prod(shape)}"
        )
    read = partial(_whole, shape, parts)
    stored = {WEIGHT: Stored(shape, torch.float32, partial(read, None))}
    if all(CODES[0] in part.state or MOMENTS[0] in part.state for part in parts):
        for moment, key in enumerate(MOMENTS):
            stored[key] = Stored(shape, torch.float32, partial(read, moment))
    return stored


def _whole(shape: tuple[int, ...], parts: Sequence[Held], moment: int | None) -> Tensor:
    """The fp32 weights, or a moment of them, put together."""
    whole = torch.empty(math.prod(shape), dtype=torch.float32)
    for part in parts:
        if moment is None:
            values = part.weights[part.at : part.at + part.length]
        else:
            values = moment_of(part.state, moment, part.at, part.length)
        whole[part.start : part.start + part.length] = values
    return whole.view(shape)
