"""Small models and geometries that tests share."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from vdsgen.spec.architecture import Geometry, Vdt


def tiny(**changes: Any) -> Vdt:
    """A model of every kind of sublayer that runs in milliseconds."""
    sizes: dict[str, Any] = {
        "in_channels": 3,
        "patch_size": 2,
        "hidden_size": 24,
        "depth": 4,
        "heads": 2,
        "mlp_hidden_size": 40,
        "condition": "text",
        "text_hidden_size": 10,
        "classes": 5,
    }
    return Vdt(**{**sizes, **changes})


def geometry(model: Vdt, frames: int = 4, rows: int = 2, columns: int = 3, text_tokens: int = 5) -> Geometry:
    """A clip of rows x columns patches a frame."""
    return Geometry(
        frames=frames,
        patches=rows * columns,
        text_tokens=text_tokens if model.condition == "text" else 0,
        latent_height=rows * model.patch_size,
        latent_width=columns * model.patch_size,
    )


def random_batch(
    model: Vdt, where: Geometry, batch: int = 2, seed: int = 0
) -> tuple[tuple[Tensor, ...], Tensor]:
    """((noised, timestep[, condition]), target), as a loader gives it."""
    generator = torch.Generator().manual_seed(seed)
    shape = (batch, model.in_channels, where.frames, where.latent_height, where.latent_width)
    inputs: tuple[Tensor, ...] = (
        torch.randn(shape, generator=generator),
        torch.rand(batch, generator=generator),
    )
    if model.condition == "class":
        inputs = (*inputs, torch.randint(0, model.classes + 1, (batch,), generator=generator))
    if model.condition == "text":
        inputs = (
            *inputs,
            torch.randn(batch, where.text_tokens, model.text_hidden_size, generator=generator),
        )
    return inputs, torch.randn(shape, generator=generator)


def randomise(module: torch.nn.Module, seed: int = 0) -> None:
    """Replaces every weight, so that nothing is zero or one by construction."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.3)
