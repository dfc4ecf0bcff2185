"""LTX-Video: rectified flow whose shift grows with the clip's tokens."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from vdsgen.spec.recipes.recipe import (
    Autoencoding,
    Recipe,
    RectifiedFlow,
    SamplingFigures,
    Source,
    TextEncoding,
    TimestepSampling,
    TokenShift,
)

_PIPELINE = "diffusers/pipelines/ltx/pipeline_ltx.py"
_SHIFT = TokenShift((1024, 4096), (0.95, 2.05))

TEXT_TO_VIDEO = Recipe(
    name="ltx-video",
    summary="LTX-Video 0.9, text to video, or from a given first frame",
    class_name="LTXVideoTransformer3DModel",
    objective=RectifiedFlow(terminal=0.1),
    timesteps=TimestepSampling(kind="logit_normal"),
    shift=_SHIFT,
    inputs=("noised", "timestep", "text", "text_mask"),
    text=(TextEncoding(gives="text", encoder="T5EncoderModel", max_tokens=128, masked=False),),
    autoencoder=Autoencoding(
        class_name="AutoencoderKLLTXVideo",
        channels=128,
        spatial_factor=32,
        temporal_factor=8,
        normalisation="(raw - latents_mean) * scaling_factor / latents_std",
    ),
    first_frame_share=0.0,
    sampling=SamplingFigures(steps=50, guidance_scale=3.0, shift=_SHIFT),
    sources=(
        Source("velocity target", "finetrainers models/ltx_video/base_specification.py, forward"),
        Source("timestep given as 1000 t", f"{_PIPELINE}:768", "timestep = t.expand(latent_model_input"),
        Source(
            "logit-normal t whose mean is linear in tokens",
            "LTX-Video-Trainer ltxv_trainer/timestep_samplers.py, ShiftedLogitNormalTimestepSampler",
        ),
        Source("the same line of mu in sampling", f"{_PIPELINE}:727", "mu = calculate_shift("),
        Source(
            "mu 0.95 at 1024 tokens, 2.05 at 4096; terminal 0.1",
            "diffusers scripts/convert_ltx_to_diffusers.py",
        ),
        Source(
            "a timestep of 0 for a given frame",
            "diffusers/pipelines/ltx/pipeline_ltx_image2video.py:841",
            "timestep = timestep.unsqueeze(-1) * (1 - conditioning_mask)",
        ),
        Source("128 tokens", f"{_PIPELINE}:563", "max_sequence_length: int = 128"),
        Source("encoder without mask", f"{_PIPELINE}:269", "self.text_encoder(text_input_ids.to(device))[0]"),
        Source(
            "normalisation", f"{_PIPELINE}:461", "(latents - latents_mean) * scaling_factor / latents_std"
        ),
        Source("50 steps", f"{_PIPELINE}:545", "num_inference_steps: int = 50"),
        Source("guidance 3", f"{_PIPELINE}:547", "guidance_scale: float = 3"),
        Source("caption dropout 0.1", "this project's default, as for the bundled family"),
    ),
    notes=(
        "diffusion-pipe (models/ltx_video.py) draws a logit-normal t without shift.",
        "Videos are made from a given first frame too: set first_frame_share to the share of samples that "
        "are "
        "trained so. finetrainers takes 0.1, with a little noise on that frame (first_frame_conditioning_p, "
        "min_first_frame_sigma); diffusion-pipe 0 unless told, with sigma 0.00001 and without its error "
        "(first_frame_conditioning_p). Here it has no noise, timestep 0, as in diffusers' pipeline, and its "
        "error "
        "does not count.",
    ),
)

ALL = (TEXT_TO_VIDEO,)


def recipe_of(config: Mapping[str, Any]) -> Recipe:
    return TEXT_TO_VIDEO.with_sizes(
        channels=int(config.get("out_channels") or 128),
        temporal_patch=int(config.get("patch_size_t") or 1),
        spatial_patch=int(config.get("patch_size") or 1),
    )
