"""The first pipeline layer: patches, timestep and condition become hidden state, modulation and context.

Legend: B micro-batch, C latent channels, T latent frames, S patches a frame, I rows and J columns of them,
P patch edge, L text tokens, D hidden size.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vdsgen.model.layers.initial import Linear, fill_normal, layer_generator
from vdsgen.model.layers.modulation import ROWS
from vdsgen.model.layers.positions import LearnedPositions
from vdsgen.model.layers.sequence_parallel import WHOLE, SequenceRanks
from vdsgen.spec.architecture import Vdt

TIMESTEP_CHANNELS = 256
TIMESTEP_SCALE = 1000.0
"""Timesteps are in [0, 1]; the sinusoids' wavelengths are made for steps up to a thousand."""


def patchified(latents_BCTHW: Tensor, patch: int) -> Tensor:
    """b c t (h p) (w q) -> b t (h w) (c p q)"""
    batch, channels, frames, height, width = latents_BCTHW.shape
    rows, columns = height // patch, width // patch
    x = latents_BCTHW.view(batch, channels, frames, rows, patch, columns, patch)
    x = x.permute(0, 2, 3, 5, 1, 4, 6)
    return x.reshape(batch, frames, rows * columns, channels * patch * patch)


def timestep_features(timestep_B: Tensor) -> Tensor:
    """(B,) in [0, 1] -> (B, TIMESTEP_CHANNELS), fp32: cosines, then sines (arXiv 2006.11239, appendix B)."""
    half = TIMESTEP_CHANNELS // 2
    exponent = torch.arange(half, dtype=torch.float32, device=timestep_B.device) / half
    angles = TIMESTEP_SCALE * timestep_B.float()[:, None] * torch.exp(-math.log(10_000.0) * exponent)
    return torch.cat((angles.cos(), angles.sin()), dim=-1)


class TimestepModulation(nn.Module):
    """Timestep, and the class where there is one, to the twelve rows that every block starts from."""

    def __init__(self, hidden_size: int, classes: int | None, generator: torch.Generator) -> None:
        super().__init__()
        self.first = Linear(TIMESTEP_CHANNELS, hidden_size, generator)
        self.second = Linear(hidden_size, hidden_size, generator)
        self.classes = None if classes is None else ClassTable(classes, hidden_size, generator)
        self.rows = Linear(hidden_size, ROWS * hidden_size, generator, zero=True)

    def forward(self, timestep_B: Tensor, class_B: Tensor | None) -> Tensor:
        features = timestep_features(timestep_B).to(self.first.weight.dtype)
        vector_BD: Tensor = self.second(F.silu(self.first(features)))
        if self.classes is not None:
            assert class_B is not None, "condition: class needs class ids"
            vector_BD = vector_BD + self.classes(class_B)
        rows: Tensor = self.rows(F.silu(vector_BD))
        return rows.view(timestep_B.shape[0], ROWS, -1)


class ClassTable(nn.Module):
    """A vector a class; the last row stands for 'no condition'."""

    def __init__(self, classes: int, hidden_size: int, generator: torch.Generator) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(classes + 1, hidden_size))
        fill_normal(self.weight, 0.02, generator)

    def forward(self, class_B: Tensor) -> Tensor:
        return F.embedding(class_B, self.weight)


class TextProjection(nn.Module):
    """Text embeddings to the model's width; an all-zero embedding stands for 'no condition'."""

    def __init__(self, text_hidden_size: int, hidden_size: int, generator: torch.Generator) -> None:
        super().__init__()
        self.first = Linear(text_hidden_size, hidden_size, generator)
        self.second = Linear(hidden_size, hidden_size, generator)

    def forward(self, text_BL: Tensor) -> Tensor:
        hidden = F.gelu(self.first(text_BL.to(self.first.weight.dtype)), approximate="tanh")
        context: Tensor = self.second(hidden)
        return context


class Embed(nn.Module):
    """(noised, timestep[, condition]) -> (hidden, modulation[, context])

    noised (B, C, T, H, W) float32, timestep (B,) float32 in [0, 1], condition (B,) int64 class ids or
    (B, L, text width) float32; hidden (B, T, I, J, D), modulation (B, 12, D), context (B, L, D), in the
    dtype of the weights. The hidden state's own shape tells later layers the size of the clips.
    """

    def __init__(self, model: Vdt, seed: int, layer_index: int, sequence: SequenceRanks = WHOLE) -> None:
        super().__init__()
        generator = layer_generator(seed, layer_index)
        self.sequence = sequence
        self.patch_size = model.patch_size
        self.condition = model.condition
        self.patches = Linear(model.in_channels * model.patch_size**2, model.hidden_size, generator)
        self.positions = (
            LearnedPositions(model.max_frames, model.max_patches, model.hidden_size, generator)
            if model.position == "learned"
            else None
        )
        classes = model.classes if model.condition == "class" else None
        self.modulation = TimestepModulation(model.hidden_size, classes, generator)
        self.text = (
            TextProjection(model.text_hidden_size, model.hidden_size, generator)
            if model.condition == "text"
            else None
        )

    def forward(self, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        noised_BCTHW, timestep_B, *condition = inputs
        patches = patchified(noised_BCTHW.to(self.patches.weight.dtype), self.patch_size)
        hidden_BTSD: Tensor = self.patches(patches)
        if self.positions is not None:
            first_patch = self.sequence.rank * hidden_BTSD.shape[2]
            hidden_BTSD = self.positions(hidden_BTSD, first_patch)
        class_B = condition[0] if self.condition == "class" else None
        frames, height, width = noised_BCTHW.shape[2:]
        grid = (height // self.patch_size, width // self.patch_size)
        hidden_BTIJD = hidden_BTSD.view(-1, frames, *grid, hidden_BTSD.shape[-1])
        outputs = (hidden_BTIJD, self.modulation(timestep_B, class_B))
        return outputs if self.text is None else (*outputs, self.text(condition[0]))
