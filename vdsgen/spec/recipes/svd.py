"""Stable Video Diffusion: EDM, image to video."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from vdsgen.spec.recipes.recipe import (
    Autoencoding,
    Edm,
    FixedShift,
    ImageConditioning,
    MicroConditions,
    Recipe,
    SamplingFigures,
    Source,
    TimestepSampling,
)

_PIPELINE = "diffusers/pipelines/stable_video_diffusion/pipeline_stable_video_diffusion.py"
_SCHEDULER = "diffusers/schedulers/scheduling_euler_discrete.py"
_TRAINER = "pixeli99/SVD_Xtend train_svd.py"

IMAGE_TO_VIDEO = Recipe(
    name="svd",
    summary="Stable Video Diffusion, image to video",
    class_name="UNetSpatioTemporalConditionModel",
    objective=Edm(),
    timesteps=TimestepSampling(kind="logit_normal", mean=0.7, std=1.6),
    shift=FixedShift(1.0),
    inputs=("noised", "timestep", "image_embedding", "added_time_ids"),
    autoencoder=Autoencoding(
        class_name="AutoencoderKLTemporalDecoder",
        channels=4,
        spatial_factor=8,
        temporal_factor=1,
        normalisation="raw * scaling_factor",
    ),
    image=ImageConditioning(
        channels="repeated_frame", scaled="raw", embedding="projected", noise=(-3.0, 0.5)
    ),
    micro_conditions=MicroConditions(),
    sampling=SamplingFigures(steps=25, guidance_scale=3.0, first_frame_guidance=1.0),
    sources=(
        Source("log sigma ~ N(0.7, 1.6^2)", f"{_TRAINER}, P_mean=0.7 P_std=1.6; arXiv 2311.15127"),
        Source(
            "preconditioning and weight", f"{_TRAINER}, c_out, c_skip, weighing; arXiv 2206.00364, table 1"
        ),
        Source(
            "timestep log(sigma) / 4",
            f"{_SCHEDULER}:475",
            "0.25 * sigma.log() for sigma in sigmas[:-1]",
        ),
        Source(
            "v as EDM's network",
            f"{_SCHEDULER}:775",
            "model_output * (-sigma / (sigma**2 + 1) ** 0.5) + (sample / (sigma**2 + 1))",
        ),
        Source("noise on the image: exp(N(-3, 0.5^2))", f"{_TRAINER}, cond_sigmas"),
        Source("dropout of embedding, latents and both", f"{_TRAINER}, conditioning_dropout_prob"),
        Source(
            "added time ids", f"{_PIPELINE}:274", "add_time_ids = [fps, motion_bucket_id, noise_aug_strength]"
        ),
        Source("frame rate told less one", f"{_PIPELINE}:509", "fps = fps - 1"),
        Source("frame rate 7", f"{_PIPELINE}:398", "fps: int = 7"),
        Source("motion bucket 127", f"{_PIPELINE}:399", "motion_bucket_id: int = 127"),
        Source("image's latents unscaled", f"{_PIPELINE}:249", "self.vae.encode(image).latent_dist.mode()"),
        Source(
            "nothing: zeros", f"{_PIPELINE}:255", "negative_image_latents = torch.zeros_like(image_latents)"
        ),
        Source(
            "channels: noised, image",
            f"{_PIPELINE}:589",
            "torch.cat([latent_model_input, image_latents], dim=2)",
        ),
        Source("normalisation", f"{_PIPELINE}:296", "1 / self.vae.config.scaling_factor * latents"),
        Source("25 steps", f"{_PIPELINE}:394", "num_inference_steps: int = 25"),
        Source("guidance from 1", f"{_PIPELINE}:396", "min_guidance_scale: float = 1.0"),
        Source("guidance to 3", f"{_PIPELINE}:397", "max_guidance_scale: float = 3.0"),
        Source("sigma 0.002 to 700, Karras steps", "the published scheduler/scheduler_config.json"),
    ),
    notes=(
        "The error of the denoised clip, weighted as published, equals the plain error of v: that is what is "
        "computed.",
        "The published data's motion scores are not public: every clip is told motion bucket 127 unless "
        "set, as "
        "SVD_Xtend does.",
    ),
)

ALL = (IMAGE_TO_VIDEO,)


def recipe_of(config: Mapping[str, Any]) -> Recipe:
    levels = len(config.get("down_block_types", (0,) * 4))
    return IMAGE_TO_VIDEO.with_sizes(
        channels=int(config.get("out_channels") or 4), spatial_patch=2 ** (levels - 1)
    )
