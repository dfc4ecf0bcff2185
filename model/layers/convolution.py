"""Temporal convolution: each channel over time, then a linear across channels.

Legend: B micro-batch, T latent frames, S patches a frame, D hidden size.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vdsgen.model.layers.initial import Linear, fill_normal


class TemporalConvolution(nn.Module):
    """A depthwise kernel over frames (zeros beyond the clip) and a pointwise linear.

    The depthwise part is a sum of shifted products on the layout that everything else uses, (B, T, S, D).
    A library convolution wants channels first: two transposed copies, and a workspace that depends on the
    card and its library version. This way costs the same bytes on every device.
    """

    def __init__(self, hidden_size: int, kernel_size: int, generator: torch.Generator) -> None:
        super().__init__()
        assert kernel_size % 2 == 1, f"an even temporal kernel ({kernel_size}) has no centre"
        self.kernel = nn.Parameter(torch.empty(kernel_size, hidden_size))
        self.bias = nn.Parameter(torch.zeros(hidden_size))
        fill_normal(self.kernel, math.sqrt(1 / kernel_size), generator)
        self.pointwise = Linear(hidden_size, hidden_size, generator)

    def forward(self, x_BTSD: Tensor) -> Tensor:
        frames = x_BTSD.shape[1]
        reach = self.kernel.shape[0] // 2
        padded = F.pad(x_BTSD, (0, 0, 0, 0, reach, reach))
        mixed: Tensor = self.bias
        for offset, weight_D in enumerate(self.kernel.unbind(0)):
            mixed = torch.addcmul(mixed, padded[:, offset : offset + frames], weight_D)
        out: Tensor = self.pointwise(mixed)
        return out
