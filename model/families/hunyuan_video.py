"""HunyuanVideo (diffusers 0.42.1, transformer_hunyuan_video.py, `HunyuanVideoTransformer3DModel`).

Legend: B micro-batch, T frames, I rows and J columns of patches, N = T I J tokens, L text tokens, D hidden
size. `first` is there where the first frame is a given picture (image_condition_type: token_replace).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from vdsgen.model.families.family import Constants, Cut, Family, Unregistered, at_most, unpatchified


class _Embed(nn.Module):
    """(noised, timestep, text, text_mask, pooled_text[, guidance]) ->
    (hidden_BTIJD, text_BLD, time_BD, text_mask[, first_BD]), the text refined by two blocks of its own."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.time_text_embed, self.x_embedder = model.time_text_embed, model.x_embedder
        self.context_embedder = model.context_embedder
        self.patch = _patch(model.config)

    def forward(self, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        noised, timestep, text, text_mask, pooled, *guidance = inputs
        time, first = self.time_text_embed(timestep, at_most(pooled, self), *guidance)
        hidden = self.x_embedder(at_most(noised, self))
        text = self.context_embedder(at_most(text, self), timestep, text_mask)
        grid = (size // edge for size, edge in zip(noised.shape[2:], self.patch, strict=True))
        outputs = (hidden.reshape(-1, *grid, hidden.shape[-1]), text, time, text_mask)
        return outputs if first is None else (*outputs, first)


class _Block(nn.Module):
    """(hidden, text, time, text_mask[, first]) -> the same, hidden state and text new."""

    def __init__(self, block: nn.Module, tables: Constants) -> None:
        super().__init__()
        self.block, self.tables = block, tables

    def forward(self, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        hidden_BTIJD, text, time, text_mask, *first = inputs
        grid = hidden_BTIJD.shape[1:4]
        tokens = hidden_BTIJD.flatten(1, 3)
        hidden, text = self.block(
            tokens,
            text,
            time,
            _attended(tokens.shape[1], text_mask),
            self.tables(*grid, like=tokens),
            first[0] if first else None,
            grid[1] * grid[2],
        )
        return hidden.view_as(hidden_BTIJD), text, time, text_mask, *first


class _Final(nn.Module):
    """(hidden, text, time, text_mask[, first]) -> prediction (B, C, T, H, W) float32."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.norm_out, self.proj_out = model.norm_out, model.proj_out
        self.patch = _patch(model.config)

    def forward(self, inputs: tuple[Tensor, ...]) -> Tensor:
        hidden_BTIJD, _, time, *_ = inputs
        tokens = self.norm_out(hidden_BTIJD.flatten(1, 3), time)
        prediction = self.proj_out(tokens).view(*hidden_BTIJD.shape[:4], -1)
        return unpatchified(prediction, self.patch, channels_first=True).float()


def _attended(tokens: int, text_mask_BL: Tensor) -> Tensor:
    """(B, 1, 1, N + L) bool: all tokens of the clip, and as many of the text as there are."""
    length = tokens + text_mask_BL.shape[1]
    used = tokens + text_mask_BL.sum(dim=1, dtype=torch.int)
    indices = torch.arange(length, device=text_mask_BL.device)
    return (indices < used.unsqueeze(1)).unsqueeze(1).unsqueeze(1)


def _patch(config: Any) -> tuple[int, int, int]:
    return (config.patch_size_t, config.patch_size, config.patch_size)


def _cut(model: Any) -> list[Cut]:
    rope, patch = Unregistered(model.rope), _patch(model.config)

    def tables_of(*grid: int) -> tuple[Tensor, ...]:
        pixels = (count * edge for count, edge in zip(grid, patch, strict=True))
        tables: tuple[Tensor, ...] = rope.module(torch.empty(1, 1, *pixels))
        return tables

    tables = Constants(tables_of)
    double = [Cut("double", _Block(block, tables)) for block in model.transformer_blocks]
    single = [Cut("single", _Block(block, tables)) for block in model.single_transformer_blocks]
    return [Cut("embed", _Embed(model)), *double, *single, Cut("final", _Final(model))]


HUNYUAN_VIDEO = Family(
    class_name="HunyuanVideoTransformer3DModel", cut=_cut, depths=("num_layers", "num_single_layers")
)
