"""int8 gradients between data-parallel ranks, where the engine would send them in half or single precision.

The mean of one gradient over the ranks of a group, in two quantised exchanges with error feedback on both
(DoubleSqueeze, arXiv 1905.05957, algorithm 1; DeepSpeed's own 1-bit optimizers, which 0.19 removed, did the
same with signs, arXiv 2102.02888, section 4.3):

1. Each rank adds what quantising lost in the step before, quantises to int8 in blocks with a scale each, and
   sends every other rank that rank's chunk (all-to-all).
2. Each rank averages its chunk in fp32, adds what it lost there before, quantises and sends it to all
   (all-gather). All ranks dequantise the same bytes, so their weights stay the same to the bit.

What is lost waits in bf16. It is in units of the gradient without fp16's loss scale, which may change from
one step to the next. A gradient that is not finite stays so on every rank (the engine then skips the step),
and leaves no error behind.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import wraps
from typing import Any, NamedTuple

import torch
from deepspeed import comm as dist
from deepspeed.runtime.zero.stage_1_and_2 import DeepSpeedZeroOptimizer
from torch import Tensor

from vdsgen.errors import VdsgenError
from vdsgen.spec.compression import BLOCK_ELEMENTS, PIECE_ELEMENTS

LARGEST_CODE = 127
TINIEST_SCALE = 2.0**-126
"""The smallest normal fp32: a block of zeros has a scale to divide by."""


class Errors(NamedTuple):
    """What quantising one piece of the gradients lost, bf16."""

    sent: Tensor
    """Of this rank's own gradients, (elements,)."""
    averaged: Tensor
    """Of this rank's chunk of the mean."""


class GradientCompressor:
    """Averages an engine's gradients; remembers the error of each piece, in the order they are reduced in,
    which is the same in every step."""

    def __init__(self, loss_scale: Callable[[], float]) -> None:
        self.errors: list[Errors] = []
        self._loss_scale = loss_scale
        self._next = 0

    @torch.no_grad()
    def average(self, gradient: Tensor, group: Any) -> None:
        """Replaces a flat gradient (elements,) by its mean over the group. Collective."""
        ranks = dist.get_world_size(group=group)
        if ranks == 1:
            return
        scale = self._loss_scale()
        for piece in torch.split(gradient, PIECE_ELEMENTS):
            exchange(piece, self._errors_of(piece, ranks), group, scale)

    def step_is_reduced(self) -> None:
        """The next gradient is the first of another step."""
        self._next = 0

    def state(self) -> list[tuple[Tensor, Tensor]]:
        """What a checkpoint keeps."""
        return [(sent.cpu(), averaged.cpu()) for sent, averaged in self.errors]

    def restore(self, state: Sequence[tuple[Tensor, Tensor]], device: torch.device) -> None:
        self.errors = [Errors(sent.to(device), averaged.to(device)) for sent, averaged in state]
        self._next = 0

    def _errors_of(self, piece: Tensor, ranks: int) -> Errors:
        if self._next == len(self.errors):
            zeros = torch.zeros(piece.numel(), dtype=torch.bfloat16, device=piece.device)
            self.errors.append(Errors(zeros, zeros.new_zeros(chunk_elements(piece.numel(), ranks))))
        errors = self.errors[self._next]
        assert errors.sent.numel() == piece.numel(), "gradients are reduced in the same order in every step"
        self._next += 1
        return errors


def chunk_elements(elements: int, ranks: int) -> int:
    """Elements of each rank's chunk of a piece: whole blocks."""
    return -(-elements // (ranks * BLOCK_ELEMENTS)) * BLOCK_ELEMENTS


def exchange(piece: Tensor, errors: Errors, group: Any, loss_scale: float = 1.0) -> None:
    """Replaces `piece` (elements,) by its mean over the group, and `errors` by what this lost."""
    ranks, elements = dist.get_world_size(group=group), piece.numel()
    whole = torch.zeros(ranks * chunk_elements(elements, ranks), dtype=torch.float32, device=piece.device)
    whole[:elements].copy_(piece).add_(errors.sent, alpha=loss_scale)
    codes, scales = quantise(whole)
    errors.sent.copy_(whole[:elements].div_(loss_scale))

    received, their_scales = torch.empty_like(codes), torch.empty_like(scales)
    dist.all_to_all_single(received, codes, group=group)
    dist.all_to_all_single(their_scales, scales, group=group)
    mean = dequantise(received, their_scales, out=whole).view(ranks, -1).mean(0)
    del codes, received

    mean.add_(errors.averaged, alpha=loss_scale)
    codes, scales = quantise(mean)
    errors.averaged.copy_(mean.div_(loss_scale))

    gathered = torch.empty_like(whole, dtype=torch.int8)
    dist.all_gather_into_tensor(gathered, codes, group=group)
    dist.all_gather_into_tensor(their_scales, scales, group=group)
    piece.copy_(dequantise(gathered, their_scales, out=whole)[:elements])
    overflowed = their_scales.isfinite().all().logical_not()
    for error in errors:
        error.masked_fill_(overflowed, 0.0)


def quantise(values: Tensor) -> tuple[Tensor, Tensor]:
    """(codes (elements,) int8, scales (blocks,) fp32) of fp32 values, whole blocks of them.

    Leaves in `values` what is lost: at most half a scale each. A block that is not finite has a scale that is
    not."""
    blocks = values.view(-1, BLOCK_ELEMENTS)
    scales = torch.linalg.vector_norm(blocks, float("inf"), dim=1).div_(LARGEST_CODE)
    scales.clamp_(min=TINIEST_SCALE)
    codes = (blocks / scales[:, None]).round_().to(torch.int8)
    blocks.addcmul_(codes, scales[:, None], value=-1)
    return codes.view(-1), scales


def dequantise(codes: Tensor, scales: Tensor, out: Tensor) -> Tensor:
    """`out` (elements,) fp32, filled with what codes and scales stand for."""
    torch.mul(codes.view(-1, BLOCK_ELEMENTS), scales[:, None], out=out.view(-1, BLOCK_ELEMENTS))
    return out


def install(engine: Any, loss_scale: Callable[[], float]) -> GradientCompressor:
    """Puts compressed averages in the place of the engine's all-reduces; see `refusal` for where.

    The engine's own reduction is one method (runtime/engine.py:3800, with BF16_Optimizer too), ZeRO-1's
    another (runtime/zero/stage_1_and_2.py:2358). Both flatten a bucket of gradients and give back their mean;
    ZeRO's may have been divided by the number of ranks beforehand, and is then to be their sum (:1688).
    """
    compressor = GradientCompressor(loss_scale)
    optimizer = engine.optimizer
    if isinstance(optimizer, DeepSpeedZeroOptimizer):

        def zero_bucket(
            bucket: list[Tensor],
            communication_data_type: torch.dtype,  # noqa: ARG001
            rank: int | None = None,  # noqa: ARG001
            log: Any = None,  # noqa: ARG001
            divide: bool = True,
            process_group: Any = None,
        ) -> Tensor:
            group = optimizer.dp_process_group if process_group is None else process_group
            ranks = dist.get_world_size(group=group)
            flat: Tensor = optimizer.flatten(bucket)
            compressor.average(flat, group)
            # Ranks that share samples' tokens add up to one data rank's gradient (:2383).
            averages = divide and optimizer.gradient_average
            return _times(flat, optimizer.sequence_parallel_size if averages else ranks)

        optimizer.allreduce_bucket = zero_bucket
        optimizer.reduce_gradients = _then(optimizer.reduce_gradients, compressor.step_is_reduced)
        return compressor

    def engine_bucket(bucket: list[Tensor], dp_group: Any, dp_world_size: float | None = None) -> Tensor:
        ranks = dist.get_world_size(group=dp_group)
        flat: Tensor = engine.flatten(bucket)
        compressor.average(flat, dp_group)
        divisor = (dp_world_size or ranks) if engine.gradient_average else 1
        return _times(flat, ranks / divisor)

    engine.allreduce_bucket = engine_bucket
    engine.buffered_allreduce_fallback = _then(engine.buffered_allreduce_fallback, compressor.step_is_reduced)
    return compressor


def _times(tensor: Tensor, factor: float) -> Tensor:
    return tensor if factor == 1 else tensor.mul_(factor)


def check_reduces_once(reason: str | None) -> None:
    """Raises VdsgenError with the reason, if there is one, for which gradients cannot be compressed."""
    if reason is not None:
        raise VdsgenError(
            f"ds_config.json: gradients cannot be compressed: {reason}",
            remedy="take vdsgen.gradient_compression out, or use ZeRO-0 or ZeRO-1 without offload",
        )


def _then(function: Callable[..., Any], after: Callable[[], None]) -> Callable[..., Any]:
    @wraps(function)
    def both(*args: Any, **kwargs: Any) -> Any:
        result = function(*args, **kwargs)
        after()
        return result

    return both
