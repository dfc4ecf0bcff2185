"""One block of the family, and one pipeline layer.

Legend: B micro-batch, T latent frames, S patches a frame, I rows and J columns of them, L text tokens,
D hidden size.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vdsgen.model.layers.attention import CrossAttention, SelfAttention
from vdsgen.model.layers.convolution import TemporalConvolution
from vdsgen.model.layers.initial import layer_generator
from vdsgen.model.layers.modulation import ROWS, gated_residual, modulated
from vdsgen.model.layers.positions import RotaryTables, Rotation
from vdsgen.model.layers.sequence_parallel import WHOLE, SequenceRanks, own_patches, whole_frames
from vdsgen.model.layers.tensor_parallel import ALONE, TensorRanks, column_linear, row_linear
from vdsgen.spec.architecture import Vdt


class Mlp(nn.Module):
    """Linear, GELU (tanh), linear. Tensor-parallel ranks share the columns between."""

    def __init__(
        self,
        hidden_size: int,
        mlp_hidden_size: int,
        generator: torch.Generator,
        ranks: TensorRanks = ALONE,
    ) -> None:
        super().__init__()
        self.first = column_linear(hidden_size, mlp_hidden_size, generator, ranks)
        self.second = row_linear(mlp_hidden_size, hidden_size, generator, ranks)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.second(F.gelu(self.first(x), approximate="tanh"))
        return out


class Block(nn.Module):
    """(hidden, modulation[, context]) -> the same, with a new hidden state.

    Spatial attention within each frame, temporal attention along each patch, temporal convolution,
    attention to the text, MLP: each a residual. Gates start at zero (adaLN-Zero, arXiv 2212.09748,
    section 3.2), so a fresh block is the identity.
    """

    def __init__(
        self,
        model: Vdt,
        seed: int,
        layer_index: int,
        rotary: RotaryTables | None,
        ranks: TensorRanks = ALONE,
        sequence: SequenceRanks = WHOLE,
    ) -> None:
        super().__init__()
        generator = layer_generator(seed, layer_index)
        width, heads = model.hidden_size, model.heads
        self.rotary = rotary
        self.sequence = sequence
        self.table = nn.Parameter(torch.zeros(ROWS, width))
        self.spatial_attention = SelfAttention(width, heads, generator, ranks)
        self.temporal_attention = SelfAttention(width, heads, generator, ranks)
        self.temporal_convolution = TemporalConvolution(width, model.temporal_kernel_size, generator, ranks)
        self.cross_attention = (
            CrossAttention(width, heads, generator, ranks) if model.condition == "text" else None
        )
        self.mlp = Mlp(width, model.mlp_hidden_size, generator, ranks)

    def forward(self, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        hidden_BTIJD, modulation_BRD, *context = inputs
        within, along = self.rotations(hidden_BTIJD)
        hidden = hidden_BTIJD.flatten(2, 3)
        # (B, 12, D) -> twelve rows that broadcast over frames and patches, (B, 1, 1, D) each
        rows = (modulation_BRD + self.table)[:, :, None, None].unbind(1)
        hidden = self._attend_within_frames(hidden, within, *rows[0:3])
        hidden = self._attend_along_time(hidden, along, *rows[3:6])
        shift, scale, gate = rows[6:9]
        hidden = gated_residual(hidden, gate, self.temporal_convolution(modulated(hidden, shift, scale)))
        if self.cross_attention is not None:
            hidden = hidden + self.cross_attention(hidden, context[0])
        shift, scale, gate = rows[9:12]
        hidden = gated_residual(hidden, gate, self.mlp(modulated(hidden, shift, scale)))
        return (hidden.view_as(hidden_BTIJD), modulation_BRD, *context)

    def rotations(self, hidden_BTIJD: Tensor) -> tuple[Rotation | None, Rotation | None]:
        """Of patches in their frame, and of frames in their clip."""
        if self.rotary is None:
            return None, None
        frames, rows, columns = hidden_BTIJD.shape[1:4]
        spatial = self.rotary.spatial(rows * self.sequence.size, columns, hidden_BTIJD)
        return spatial, self.rotary.temporal(frames, hidden_BTIJD)

    def _attend_within_frames(
        self, hidden_BTSD: Tensor, rotation: Rotation | None, shift: Tensor, scale: Tensor, gate: Tensor
    ) -> Tensor:
        x_BTSD = whole_frames(self.sequence, modulated(hidden_BTSD, shift, scale))
        # b t s d -> (b t) s d, a view
        update = self.spatial_attention(x_BTSD.flatten(0, 1), rotation).view_as(x_BTSD)
        return gated_residual(hidden_BTSD, gate, own_patches(self.sequence, update))

    def _attend_along_time(
        self, hidden_BTSD: Tensor, rotation: Rotation | None, shift: Tensor, scale: Tensor, gate: Tensor
    ) -> Tensor:
        # The norm copies into the order (b s) t d on its way; everything after it is contiguous.
        x_BSTD = modulated(hidden_BTSD.transpose(1, 2), shift, scale)
        update = self.temporal_attention(x_BSTD.flatten(0, 1), rotation)
        return gated_residual(hidden_BTSD, gate, update.view_as(x_BSTD).transpose(1, 2))
