"""Mochi: rectified flow with its time reversed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from vdsgen.spec.recipes.recipe import (
    Autoencoding,
    FixedShift,
    Recipe,
    RectifiedFlow,
    SamplingFigures,
    Source,
    TextEncoding,
    TimestepSampling,
)

_PIPELINE = "diffusers/pipelines/mochi/pipeline_mochi.py"

TEXT_TO_VIDEO = Recipe(
    name="mochi",
    summary="Mochi 1, text to video",
    class_name="MochiTransformer3DModel",
    objective=RectifiedFlow(reversed_time=True, sampling_schedule="linear_quadratic"),
    timesteps=TimestepSampling(kind="uniform"),
    shift=FixedShift(1.0),
    inputs=("noised", "timestep", "text", "text_mask"),
    text=(TextEncoding(gives="text", encoder="T5EncoderModel", max_tokens=256),),
    empty_text="zeros",
    autoencoder=Autoencoding(
        class_name="AutoencoderKLMochi",
        channels=12,
        spatial_factor=8,
        temporal_factor=6,
        normalisation="(raw - latents_mean) * scaling_factor / latents_std",
    ),
    spatial_patch=2,
    sampling=SamplingFigures(steps=64, guidance_scale=4.5),
    sources=(
        Source(
            "uniform t, target clean - noise, text and mask zeroed in dropout",
            "genmoai/mochi demos/fine_tuner/train.py",
        ),
        Source(
            "sigmas inverted: timestep 1000 (1 - t)",
            "diffusers/schedulers/scheduling_flow_match_euler_discrete.py:381",
            "if self.config.invert_sigmas:",
        ),
        Source("threshold of the schedule", f"{_PIPELINE}:617", "threshold_noise = 0.025"),
        Source("256 tokens", f"{_PIPELINE}:468", "max_sequence_length: int = 256"),
        Source("encoder with mask", f"{_PIPELINE}:240", "attention_mask=prompt_attention_mask)[0]"),
        Source(
            "normalisation",
            f"{_PIPELINE}:709",
            "latents * latents_std / self.vae.config.scaling_factor + latents_mean",
        ),
        Source("64 steps", f"{_PIPELINE}:453", "num_inference_steps: int = 64"),
        Source("guidance 4.5", f"{_PIPELINE}:455", "guidance_scale: float = 4.5"),
        Source("caption dropout 0.1", "genmoai/mochi demos/fine_tuner, caption_dropout"),
    ),
    notes=(
        "The fine-tuner zeroes text and mask of a dropped caption; diffusers' pipeline encodes the empty "
        "caption "
        "unless force_zeros_for_empty_prompt, and then encodes zeros as tokens.",
    ),
)

ALL = (TEXT_TO_VIDEO,)


def recipe_of(config: Mapping[str, Any]) -> Recipe:
    return TEXT_TO_VIDEO.with_sizes(
        channels=int(config.get("in_channels") or 12), spatial_patch=int(config.get("patch_size") or 2)
    )
