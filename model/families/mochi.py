"""Mochi 1 (diffusers 0.42.1, transformer_mochi.py, `MochiTransformer3DModel`).

Legend: B micro-batch, T frames, I rows and J columns of patches, N = T I J tokens, L text tokens, D hidden
size, E text width, H heads, F half a head's width. Rotary frequencies are learned: they travel (3, H, F), and
every block makes its tables of them.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from vdsgen.model.families.family import Constants, Cut, Family, Unregistered, at_most, unpatchified


class _Embed(nn.Module):
    """(noised, timestep, text, text_mask) -> (hidden_BTIJD, text_BLE, time_BD, frequencies_3HF, text_mask)"""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.patch_embed, self.time_embed = model.patch_embed, model.time_embed
        self.pos_frequencies = model.pos_frequencies
        self.patch_size = model.config.patch_size

    def forward(self, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        noised, timestep, text, text_mask = inputs
        noised = at_most(noised, self)
        time, text = self.time_embed(timestep, at_most(text, self), text_mask, hidden_dtype=noised.dtype)
        hidden = self.patch_embed(noised.transpose(1, 2).flatten(0, 1))
        frames, height, width = noised.shape[2:]
        grid = (frames, height // self.patch_size, width // self.patch_size)
        # Not the parameter itself: a stage's outputs are what its backward begins at.
        frequencies = self.pos_frequencies.clone()
        return hidden.reshape(-1, *grid, hidden.shape[-1]), text, time, frequencies, text_mask


class _Block(nn.Module):
    """(hidden, text, time, frequencies, text_mask) -> the same, hidden state and text new (the last block
    leaves the text as it is)."""

    def __init__(self, block: nn.Module, positions: Constants) -> None:
        super().__init__()
        self.block, self.positions = block, positions

    def forward(self, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        hidden_BTIJD, text, time, frequencies_3HF, text_mask = inputs
        (positions_N3,) = self.positions(*hidden_BTIJD.shape[1:4], like=hidden_BTIJD)
        # MochiRoPE._create_rope without its autocast, which knows no device but processors and GPUs
        angles_NHF = torch.einsum("nd,dhf->nhf", positions_N3, frequencies_3HF.float())
        tables = (angles_NHF.cos(), angles_NHF.sin())
        hidden, text = self.block(hidden_BTIJD.flatten(1, 3), text, time, text_mask, tables)
        return hidden.view_as(hidden_BTIJD), text, time, frequencies_3HF, text_mask


class _Final(nn.Module):
    """(hidden, text, time, frequencies, text_mask) -> prediction (B, C, T, H, W) float32."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.norm_out, self.proj_out = model.norm_out, model.proj_out
        self.patch = (1, model.config.patch_size, model.config.patch_size)

    def forward(self, inputs: tuple[Tensor, ...]) -> Tensor:
        hidden_BTIJD, _, time, *_ = inputs
        tokens = self.norm_out(hidden_BTIJD.flatten(1, 3), time)
        prediction = self.proj_out(tokens).view(*hidden_BTIJD.shape[:4], -1)
        return unpatchified(prediction, self.patch).float()


def _cut(model: Any) -> list[Cut]:
    rope = Unregistered(model.rope)

    def positions_of(*grid: int) -> tuple[Tensor, ...]:
        return (rope.module._get_positions(*grid, dtype=torch.float32),)

    positions = Constants(positions_of)
    *blocks, last = [_Block(block, positions) for block in model.transformer_blocks]
    return [
        Cut("embed", _Embed(model)),
        *(Cut("block", block) for block in blocks),
        Cut("last", last),
        Cut("final", _Final(model)),
    ]


MOCHI = Family(class_name="MochiTransformer3DModel", cut=_cut, depths=("num_layers",))
