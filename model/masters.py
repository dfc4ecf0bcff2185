"""The fp32 weights that a rank's optimizer steps, whatever DeepSpeed wraps around it.

Which class the engine chooses is in vdsgen/cost/engine_optimizer.py; each keeps its fp32 weights elsewhere,
some flat and shared out between data-parallel ranks. Files are of DeepSpeed 0.19.8, below deepspeed/runtime.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import torch
from deepspeed import comm as dist
from deepspeed.runtime.bf16_optimizer import BF16_Optimizer
from deepspeed.runtime.fp16.unfused_optimizer import FP16_UnfusedOptimizer
from deepspeed.runtime.zero.stage3 import DeepSpeedZeroOptimizer_Stage3
from deepspeed.runtime.zero.stage_1_and_2 import DeepSpeedZeroOptimizer
from torch import Tensor


class Slice(NamedTuple):
    """Elements of a flat fp32 tensor that are elements of a parameter."""

    parameter: str
    """Its name in the module, which begins with its layer's number."""
    start: int
    """First element of the flattened parameter."""
    at: int
    """First element of the fp32 tensor."""
    length: int


def master_tensors(engine: Any) -> list[Tensor]:
    """The fp32 weights that this rank holds, flat (n,), each a view of the optimizer's own: trainable ones
    alone. Rows beyond the last parameter's are padding."""
    return [tensor.detach().view(-1) for tensor in stepped_tensors(engine)]


def stepped_tensors(engine: Any) -> Sequence[Tensor]:
    """The same as `base_optimizer` knows them: its states' keys, of whatever shape."""
    optimizer = engine.optimizer
    if isinstance(optimizer, DeepSpeedZeroOptimizer_Stage3):
        found: Sequence[Tensor] = optimizer.fp32_partitioned_groups_flat
    elif isinstance(optimizer, DeepSpeedZeroOptimizer):
        found = optimizer.single_partition_of_fp32_groups
    elif isinstance(optimizer, BF16_Optimizer):
        found = optimizer.fp32_groups_flat_partition
    elif isinstance(optimizer, FP16_UnfusedOptimizer):
        found = [master for group in optimizer.fp32_groups for master in group]
    else:
        found = [parameter for _, parameter in trainable(engine)]
    return found


def base_optimizer(engine: Any) -> Any:
    """The optimizer that takes the steps, inside of what DeepSpeed wraps around it."""
    wrappers = (DeepSpeedZeroOptimizer_Stage3, DeepSpeedZeroOptimizer, BF16_Optimizer, FP16_UnfusedOptimizer)
    return engine.optimizer.optimizer if isinstance(engine.optimizer, wrappers) else engine.optimizer


def are_shared_out(engine: Any) -> bool:
    """Whether each data-parallel rank holds another part of them; if not, all hold all."""
    shares = (DeepSpeedZeroOptimizer_Stage3, DeepSpeedZeroOptimizer, BF16_Optimizer)
    return isinstance(engine.optimizer, shares)


def trainable(engine: Any) -> list[tuple[str, Tensor]]:
    """(name, parameter) of this rank's layers, in the module's order."""
    return [(name, one) for name, one in engine.module.named_parameters() if one.requires_grad]


def weights_from_masters(engine: Any) -> None:
    """The model's weights become its fp32 weights, rounded to its dtype: what ends an optimizer step.
    Collective among data-parallel ranks."""
    optimizer = engine.optimizer
    if isinstance(optimizer, DeepSpeedZeroOptimizer_Stage3):
        # As its step does (zero/stage3.py:2876): what is gathered is let go, what stays gathered is renewed.
        optimizer._partition_all_parameters()
        for sub_group in range(len(optimizer.fp16_groups)):
            optimizer._reassign_or_swap_out_partitioned_parameters(sub_group)
        if optimizer.persistent_parameters:
            optimizer.persistent_parameters[0].all_gather(optimizer.persistent_parameters)
        optimizer.invalidate_secondary_tensor()
    elif isinstance(optimizer, DeepSpeedZeroOptimizer | BF16_Optimizer):
        optimizer.update_lp_params()
    elif isinstance(optimizer, FP16_UnfusedOptimizer):
        for halves, masters in zip(optimizer.fp16_groups, optimizer.fp32_groups, strict=True):
            for half, master in zip(halves, masters, strict=True):
                half.data.copy_(master.data)


def slices_of(engine: Any) -> list[list[Slice]]:
    """For each of `master_tensors`, the parameters' elements that it holds."""
    names = {id(parameter): name for name, parameter in trainable(engine)}
    optimizer = engine.optimizer
    if isinstance(optimizer, DeepSpeedZeroOptimizer_Stage3):
        rank = dist.get_rank(group=optimizer.dp_process_group)
        return [_of_sub_group(group, rank, names) for group in optimizer.fp16_groups]
    if isinstance(optimizer, DeepSpeedZeroOptimizer):
        return [
            _of_partition(
                zip(
                    optimizer.round_robin_bit16_groups[group],
                    optimizer.round_robin_bit16_offsets[group],
                    strict=False,
                ),
                dist.get_rank(group=optimizer.real_dp_process_group[group]) * master.numel(),
                master.numel(),
                names,
            )
            for group, master in enumerate(optimizer.single_partition_of_fp32_groups)
        ]
    if isinstance(optimizer, BF16_Optimizer):
        return [
            _of_partition(
                _one_after_another(optimizer.bf16_groups[group]),
                dist.get_rank(group=optimizer.real_dp_process_group[group]) * master.numel(),
                master.numel(),
                names,
            )
            for group, master in enumerate(optimizer.fp32_groups_flat_partition)
        ]
    if isinstance(optimizer, FP16_UnfusedOptimizer):
        held = [parameter for group in optimizer.fp16_groups for parameter in group]
    else:
        held = [parameter for _, parameter in trainable(engine)]
    return [[Slice(names[id(one)], 0, 0, one.numel())] for one in held]


def shapes_of(engine: Any) -> dict[str, list[int]]:
    """Of the trainable parameters, whole where ZeRO partitions them."""
    return {name: list(getattr(one, "ds_shape", one.shape)) for name, one in trainable(engine)}


def _one_after_another(parameters: Sequence[Tensor]) -> Iterator[tuple[Tensor, int]]:
    offset = 0
    for parameter in parameters:
        yield parameter, offset
        offset += parameter.numel()


def _of_partition(
    placed: Iterator[tuple[Tensor, int]], first: int, length: int, names: dict[int, str]
) -> list[Slice]:
    """Of elements [first, first + length) of the flat group in which parameters lie at their offsets."""
    found = []
    for parameter, offset in placed:
        begin, end = max(first, offset), min(first + length, offset + parameter.numel())
        if begin < end:
            found.append(Slice(names[id(parameter)], begin - offset, begin - first, end - begin))
    return found


def _of_sub_group(parameters: Sequence[Any], rank: int, names: dict[int, str]) -> list[Slice]:
    """ZeRO-3 shares out each parameter by itself, rounded up (zero/partition_parameters.py:1693)."""
    found, at = [], 0
    for parameter in parameters:
        share = parameter.partition_numel()
        length = min(share, parameter.ds_numel - rank * share)
        if length > 0:
            found.append(Slice(names[id(parameter)], rank * share, at, length))
        at += share
    return found


def whole_parameters(
    tensors: Sequence[Sequence[Tensor]],
    slices: Sequence[Sequence[Sequence[Slice]]],
    shapes: dict[str, list[int]],
) -> dict[str, Tensor]:
    """Parameters put together of what several ranks hold; those that no slice names are not in it."""
    found: dict[str, Tensor] = {}
    for of_rank, their_slices in zip(tensors, slices, strict=True):
        for tensor, of_tensor in zip(of_rank, their_slices, strict=True):
            for parameter, start, at, length in of_tensor:
                if parameter not in found:
                    found[parameter] = torch.full(shapes[parameter], torch.nan)
                found[parameter].view(-1)[start : start + length] = tensor[at : at + length]
    return found
