"""Temporal convolution: each channel over time, then a linear across channels.

Legend: B micro-batch, T latent frames, S patches a frame, D hidden size, W taps of the kernel.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from vdsgen.model.layers.initial import fill_normal
from vdsgen.model.layers.tensor_parallel import (
    ALONE,
    Split,
    TensorRanks,
    mark_split,
    row_linear,
    share_of_channels,
)


class _DepthwiseOverTime(torch.autograd.Function):
    """out[t] = bias + sum over k of x[t + k - reach] * kernel[k], zeros beyond the clip.

    A sum of shifted products on the layout that everything else uses, (B, T, S, D). A library convolution
    wants channels first: two transposed copies, and a workspace that depends on the card and its library
    version. Written by hand because autograd would keep a padded copy of x and three gradients of it.
    """

    @staticmethod
    def forward(ctx: Any, x_BTSD: Tensor, kernel_WD: Tensor, bias_D: Tensor) -> Tensor:
        ctx.save_for_backward(x_BTSD, kernel_WD)
        reach = kernel_WD.shape[0] // 2
        out = torch.addcmul(bias_D, x_BTSD, kernel_WD[reach])
        for tap, seen, told in _shifts(x_BTSD.shape[1], kernel_WD.shape[0]):
            out[:, told].addcmul_(x_BTSD[:, seen], kernel_WD[tap])
        return out

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        x_BTSD, kernel_WD = ctx.saved_tensors
        gradient = gradients[0]
        reach = kernel_WD.shape[0] // 2
        to_x = gradient * kernel_WD[reach]
        to_kernel = torch.zeros_like(kernel_WD)
        to_kernel[reach] = (gradient * x_BTSD).sum((0, 1, 2))
        for tap, seen, told in _shifts(x_BTSD.shape[1], kernel_WD.shape[0]):
            to_x[:, seen].addcmul_(gradient[:, told], kernel_WD[tap])
            to_kernel[tap] = (gradient[:, told] * x_BTSD[:, seen]).sum((0, 1, 2))
        return to_x, to_kernel, gradient.sum((0, 1, 2))


def _shifts(frames: int, taps: int) -> Iterator[tuple[int, slice, slice]]:
    """(tap, frames it reads, frames it writes) for every tap but the centre; never beyond the clip."""
    reach = taps // 2
    for tap in range(taps):
        shift = tap - reach
        if shift and abs(shift) < frames:
            yield (
                tap,
                slice(max(shift, 0), frames + min(shift, 0)),
                slice(max(-shift, 0), frames - max(shift, 0)),
            )


class TemporalConvolution(nn.Module):
    """A depthwise kernel over frames, then a linear across channels: a separable convolution in time.

    Tensor-parallel ranks share the channels, which takes an all-reduce forward and a gather backward. Over
    NVLink both take less time than the linear and the passes over memory that they save, and each rank
    holds its share of the weights and activations (docs/model.md).
    """

    def __init__(
        self,
        hidden_size: int,
        kernel_size: int,
        generator: torch.Generator,
        ranks: TensorRanks = ALONE,
    ) -> None:
        super().__init__()
        assert kernel_size % 2 == 1, f"an even temporal kernel ({kernel_size}) has no centre"
        self.ranks = ranks
        channels = hidden_size // ranks.size
        self.kernel = nn.Parameter(torch.empty(kernel_size, channels))
        self.bias = nn.Parameter(torch.zeros(channels))
        fill_normal(
            self.kernel,
            math.sqrt(1 / kernel_size),
            generator,
            (kernel_size, hidden_size),
            lambda whole: Split(dim=1).share(whole, ranks),
        )
        if ranks.size > 1:
            mark_split(self.kernel, Split(dim=1))
            mark_split(self.bias, Split(dim=0))
        self.pointwise = row_linear(hidden_size, hidden_size, generator, ranks)

    def forward(self, x_BTSD: Tensor) -> Tensor:
        share = share_of_channels(self.ranks, x_BTSD)
        mixed = _DepthwiseOverTime.apply(share, self.kernel, self.bias)  # type: ignore[no-untyped-call]
        out: Tensor = self.pointwise(mixed)
        return out
