"""Latte: noise prediction on DDPM's linear schedule."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from vdsgen.spec.recipes.recipe import (
    Autoencoding,
    FixedShift,
    Recipe,
    SamplingFigures,
    ScheduledNoise,
    Source,
    TextEncoding,
    TimestepSampling,
)

_PIPELINE = "diffusers/pipelines/latte/pipeline_latte.py"

TEXT_TO_VIDEO = Recipe(
    name="latte",
    summary="Latte 1, text to video",
    class_name="LatteTransformer3DModel",
    objective=ScheduledNoise(prediction="epsilon", beta_start=0.0001, beta_end=0.02, betas="linear"),
    timesteps=TimestepSampling(kind="uniform"),
    shift=FixedShift(1.0),
    inputs=("noised", "timestep", "text"),
    text=(
        TextEncoding(
            gives="text", encoder="T5EncoderModel", max_tokens=120, padding="zeroed", cleaning="lower"
        ),
    ),
    autoencoder=Autoencoding(
        class_name="AutoencoderKL",
        channels=4,
        spatial_factor=8,
        temporal_factor=1,
        normalisation="raw * scaling_factor",
    ),
    spatial_patch=2,
    sampling=SamplingFigures(steps=50, guidance_scale=7.5),
    sources=(
        Source("uniform i, error of the noise", "Vchitect/Latte train.py"),
        Source("linear betas 0.0001 to 0.02, DDIM", "Vchitect/Latte configs/t2x/t2v_sample.yaml"),
        Source("120 tokens", f"{_PIPELINE}:257", "max_length = 120"),
        Source(
            "encoder with mask", f"{_PIPELINE}:284", "self.text_encoder(text_input_ids.to(device), attention"
        ),
        Source("padding zeroed", f"{_PIPELINE}:202", "masked_feature = emb * mask[:, None, :, None]"),
        Source("lower case", f"{_PIPELINE}:444", "text = text.lower().strip()"),
        Source("learned variance dropped", f"{_PIPELINE}:841", "noise_pred = noise_pred.chunk(2, dim=1)[0]"),
        Source("normalisation", f"{_PIPELINE}:891", "1 / self.vae.config.scaling_factor * latents"),
        Source("50 steps", f"{_PIPELINE}:619", "num_inference_steps: int = 50"),
        Source("guidance 7.5", f"{_PIPELINE}:621", "guidance_scale: float = 7.5"),
        Source("caption dropout 0.1", "this project's default, as for the bundled family"),
    ),
    notes=(
        "The module's second half of output channels is a learned variance: its authors' trainer adds the "
        "variational bound for it (Vchitect/Latte diffusion/__init__.py, learn_sigma), and sampling by DDIM "
        "does "
        "not use it. Here the loss is of the noise alone, and those channels are not trained.",
        "diffusers' pipeline cuts padding off where one caption is encoded alone, and zeroes it in a batch: "
        "zeroed here, so that all captions have one shape.",
    ),
)

ALL = (TEXT_TO_VIDEO,)


def recipe_of(config: Mapping[str, Any]) -> Recipe:
    return TEXT_TO_VIDEO.with_sizes(
        channels=int(config.get("in_channels") or 4), spatial_patch=int(config.get("patch_size") or 2)
    )
