"""The loss of a diffusers family."""

from __future__ import annotations

from torch import Tensor


def recipe_loss(prediction: Tensor, target: tuple[Tensor, Tensor]) -> Tensor:
    """Mean over the batch of `recipe_losses`. The clone is four bytes: see diffusion_loss in
    vdsgen.model.objective."""
    return recipe_losses(prediction, target).mean().clone()


def recipe_losses(prediction: Tensor, target: tuple[Tensor, Tensor]) -> Tensor:
    """(B,) float32: each sample's mean squared error times its weight.

    prediction (B, C_out, T, H, W); target is what it should be (B, C, T, H, W), and the weights (B,), or
    (B, T) for each frame. Channels of the prediction beyond those are a learned variance (Latte), and count
    for nothing.
    """
    wanted, weight = target
    error = (prediction[:, : wanted.shape[1]].float() - wanted.float()) ** 2
    if weight.ndim == 1:
        return error.flatten(1).mean(dim=1) * weight
    return (error.mean(dim=(1, 3, 4)) * weight).mean(dim=1)
