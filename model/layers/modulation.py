"""Adaptive normalisation, adaLN-single (PixArt-alpha, arXiv 2310.00426, section 2.3).

The embedding computes twelve rows once from timestep and condition; every block adds its own learned
table to them: shift, scale and gate of spatial attention, temporal attention, temporal convolution
and the MLP. Legend: B micro-batch, T latent frames, S patches, D hidden size.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

ROWS = 12
"""Shift, scale and gate for each of a block's four modulated sublayers."""


def normalized(x: Tensor) -> Tensor:
    """Layer norm over the last dimension without learned scale; accumulates in fp32 in torch's kernel."""
    return F.layer_norm(x, (x.shape[-1],))


def modulated(x_D: Tensor, shift_D: Tensor, scale_D: Tensor) -> Tensor:
    """norm(x) * (1 + scale) + shift; shift and scale broadcast against x (..., D)."""
    return torch.addcmul(shift_D, normalized(x_D), 1 + scale_D)


def gated_residual(hidden_D: Tensor, gate_D: Tensor, update_D: Tensor) -> Tensor:
    """hidden + gate * update, in one kernel that keeps no product."""
    return torch.addcmul(hidden_D, gate_D, update_D)
