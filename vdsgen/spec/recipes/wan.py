"""Wan 2.1 and 2.2: rectified flow; text to video, and image to video with a masked clip as channels."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from vdsgen.spec.recipes.recipe import (
    AreaShift,
    Autoencoding,
    FixedShift,
    ImageConditioning,
    Recipe,
    RectifiedFlow,
    SamplingFigures,
    Source,
    TextEncoding,
    TimestepSampling,
)

_PIPELINE = "diffusers/pipelines/wan/pipeline_wan.py"
_IMAGE_PIPELINE = "diffusers/pipelines/wan/pipeline_wan_i2v.py"

TEXT_TO_VIDEO = Recipe(
    name="wan",
    summary="Wan 2.x, text to video",
    class_name="WanTransformer3DModel",
    objective=RectifiedFlow(),
    timesteps=TimestepSampling(kind="logit_normal"),
    shift=FixedShift(3.0),
    inputs=("noised", "timestep", "text"),
    text=(
        TextEncoding(
            gives="text",
            encoder="UMT5EncoderModel",
            max_tokens=512,
            padding="zeroed",
            cleaning="whitespace",
        ),
    ),
    autoencoder=Autoencoding(
        class_name="AutoencoderKLWan",
        channels=16,
        spatial_factor=8,
        temporal_factor=4,
        normalisation="(raw - latents_mean) / latents_std",
    ),
    spatial_patch=2,
    sampling=SamplingFigures(steps=50, guidance_scale=5.0, shift=AreaShift(3.0, 5.0, 832 * 480)),
    sources=(
        Source("velocity target, timestep 1000 t", "finetrainers models/wan/base_specification.py, forward"),
        Source("timestep given as 1000 t", f"{_PIPELINE}:613", "timestep = t.expand(latents.shape[0])"),
        Source(
            "logit-normal t with training shift 3", "musubi-tuner docs/wan.md, timestep_sampling shift, 3.0"
        ),
        Source("sampling shift", f"{_PIPELINE}:58", "flow_shift = 5.0  # 5.0 for 720P, 3.0 for 480P"),
        Source("512 tokens", f"{_PIPELINE}:404", "max_sequence_length: int = 512"),
        Source("padding zeroed", f"{_PIPELINE}:188", "prompt_embeds = [u[:v] for u, v in"),
        Source("normalisation", f"{_PIPELINE}:672", "latents = latents / latents_std + latents_mean"),
        Source("50 steps", f"{_PIPELINE}:391", "num_inference_steps: int = 50"),
        Source("guidance 5", f"{_PIPELINE}:392", "guidance_scale: float = 5.0"),
        Source("caption dropout 0.1", "this project's default, as for the bundled family"),
    ),
    notes=(
        "diffusion-pipe (models/wan/wan.py) draws a logit-normal t without shift unless told one; "
        "musubi-tuner's "
        "example shifts by 3; the published shift of sampling is 3 at 480p and 5 at 720p, and 12 and 5 for "
        "Wan 2.2's text and image models (musubi-tuner docs/wan.md): set shift to train as they sample.",
        "Wan 2.2's 14 B models are two experts that divide t at 0.875 (text) or 0.9 (image): set "
        "timestep_range to the half that is trained (musubi-tuner docs/wan.md).",
        "Wan 2.2's 5 B model makes videos from a given first frame too: set first_frame_share to the share "
        "of "
        "samples that are trained so (diffusion-pipe trains it from text alone: 0). The error of that frame "
        "does "
        "not count.",
    ),
)

IMAGE_TO_VIDEO = replace(
    TEXT_TO_VIDEO,
    name="wan-i2v",
    summary="Wan 2.x, image to video",
    image=ImageConditioning(channels="masked_clip", scaled="as_latents"),
    sources=(
        *TEXT_TO_VIDEO.sources,
        Source(
            "mask of the first frame", f"{_IMAGE_PIPELINE}:480", "mask_lat_size.view(batch_size, -1, self"
        ),
        Source("grey after the first frame", f"{_IMAGE_PIPELINE}:433", "image.new_zeros(image.shape[0]"),
        Source(
            "channels: noised, mask, clip",
            f"{_IMAGE_PIPELINE}:772",
            "torch.cat([latents, condition], dim=1)",
        ),
    ),
)

WITH_CLIP = replace(
    IMAGE_TO_VIDEO,
    name="wan-i2v-clip",
    summary="Wan 2.1, image to video with CLIP",
    inputs=("noised", "timestep", "text", "image"),
    image=ImageConditioning(channels="masked_clip", scaled="as_latents", embedding="hidden_states"),
    sources=(
        *IMAGE_TO_VIDEO.sources,
        Source("CLIP's last but one states", f"{_IMAGE_PIPELINE}:251", "image_embeds.hidden_states[-2]"),
    ),
)

LARGE_LATENTS = 48
"""Channels of the autoencoder of Wan 2.2's 5 B model, which takes 16 pixels a side."""

LARGE = replace(
    TEXT_TO_VIDEO,
    name="wan-ti2v",
    summary="Wan 2.2 5B, text to video, or from a given first frame",
    autoencoder=replace(TEXT_TO_VIDEO.autoencoder, channels=LARGE_LATENTS, spatial_factor=16),
    first_frame_share=0.0,
    sources=(
        *TEXT_TO_VIDEO.sources,
        Source("a timestep of 0 for the given frame", f"{_IMAGE_PIPELINE}:768", "first_frame_mask[0][0]"),
        Source(
            "the given frame without noise", f"{_IMAGE_PIPELINE}:764", "(1 - first_frame_mask) * condition"
        ),
    ),
)

ALL = (TEXT_TO_VIDEO, IMAGE_TO_VIDEO, WITH_CLIP, LARGE)


def recipe_of(config: Mapping[str, Any]) -> Recipe:
    """By the configuration: more channels in than out, and an image branch or none."""
    if config.get("pos_embed_seq_len") is not None:
        raise ValueError("pos_embed_seq_len is set; no recipe of Wan is of a first and a last frame")
    latent = int(config.get("out_channels", 16))
    recipe = TEXT_TO_VIDEO
    if int(config.get("in_channels", 16)) > latent:
        recipe = WITH_CLIP if config.get("image_dim") is not None else IMAGE_TO_VIDEO
    elif latent == LARGE_LATENTS:
        recipe = LARGE
    patch = config.get("patch_size", (1, 2, 2))
    return recipe.with_sizes(channels=latent, temporal_patch=int(patch[0]), spatial_patch=int(patch[1]))
