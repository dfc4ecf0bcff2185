"""The last pipeline layer: hidden state to a prediction in latent space.

Legend: B micro-batch, C latent channels, T latent frames, S patches a frame, I rows and J columns of them,
P patch edge, R rows of modulation, D hidden size, X latents of a patch.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from vdsgen.model.layers.initial import Linear, layer_generator
from vdsgen.model.layers.modulation import ROWS, modulated
from vdsgen.spec.architecture import Vdt


def unpatchified(patches_BTSX: Tensor, rows: int, columns: int, patch: int) -> Tensor:
    """b t (h w) (c p q) -> b c t (h p) (w q)"""
    batch, frames, _, features = patches_BTSX.shape
    channels = features // patch**2
    x = patches_BTSX.view(batch, frames, rows, columns, channels, patch, patch)
    x = x.permute(0, 4, 1, 2, 5, 3, 6)
    return x.reshape(batch, channels, frames, rows * patch, columns * patch)


class Final(nn.Module):
    """(hidden, modulation[, context]) -> prediction (B, C, T, H, W) float32.

    Its shift and scale are a learned mixture of the twelve rows, channel by channel, plus a table of its
    own: so it reads the timestep without a matrix of its own. The projection starts at zero.
    """

    def __init__(self, model: Vdt, seed: int, layer_index: int) -> None:
        super().__init__()
        generator = layer_generator(seed, layer_index)
        self.patch_size = model.patch_size
        self.table = nn.Parameter(torch.zeros(2, model.hidden_size))
        self.mixture = nn.Parameter(torch.zeros(2, ROWS, model.hidden_size))
        with torch.no_grad():  # starts as the first block's rows: spatial attention's shift and scale
            self.mixture[0, 0] = 1
            self.mixture[1, 1] = 1
        self.projection = Linear(
            model.hidden_size, model.in_channels * model.patch_size**2, generator, zero=True
        )

    def forward(self, inputs: tuple[Tensor, ...]) -> Tensor:
        hidden_BTIJD, modulation_BRD, *_ = inputs
        rows, columns = hidden_BTIJD.shape[2:4]
        mixed_B2D = (modulation_BRD[:, None] * self.mixture).sum(dim=2) + self.table
        shift, scale = mixed_B2D[:, :, None, None].unbind(1)
        patches_BTSX: Tensor = self.projection(modulated(hidden_BTIJD.flatten(2, 3), shift, scale))
        return unpatchified(patches_BTSX, rows, columns, self.patch_size).float()
