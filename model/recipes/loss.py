"""The loss of a diffusers family."""

from __future__ import annotations

from torch import Tensor


def recipe_loss(prediction: Tensor, target: Tensor, weight: Tensor) -> Tensor:
    """Mean over the batch of each sample's mean squared error times its weight; fp32.

    prediction (B, C_out, T, H, W), target (B, C, T, H, W), weight (B,). Channels of the prediction beyond
    the target's are a learned variance (Latte), and count for nothing. The clone is four bytes: see
    diffusion_loss in vdsgen.model.objective.
    """
    error = (prediction[:, : target.shape[1]].float() - target.float()) ** 2
    return (error.flatten(1).mean(dim=1) * weight).mean().clone()
