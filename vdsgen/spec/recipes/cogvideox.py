"""CogVideoX: v on a scaled-linear schedule with zero terminal signal; text, or text and first frame."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from vdsgen.spec.recipes.recipe import (
    Autoencoding,
    FixedShift,
    ImageConditioning,
    Recipe,
    SamplingFigures,
    ScheduledNoise,
    Source,
    TextEncoding,
    TimestepSampling,
)

_PIPELINE = "diffusers/pipelines/cogvideo/pipeline_cogvideox.py"
_IMAGE_PIPELINE = "diffusers/pipelines/cogvideo/pipeline_cogvideox_image2video.py"
_SCHEDULER = "diffusers/schedulers/scheduling_ddim_cogvideox.py"
_CONVERSION = "diffusers scripts/convert_cogvideox_to_diffusers.py"

_V = ScheduledNoise(
    prediction="v",
    beta_start=0.00085,
    beta_end=0.012,
    betas="scaled_linear",
    zero_terminal_snr=True,
    spacing="trailing",
)

TEXT_TO_VIDEO = Recipe(
    name="cogvideox",
    summary="CogVideoX 5B and 1.5, text to video",
    class_name="CogVideoXTransformer3DModel",
    objective=_V,
    timesteps=TimestepSampling(kind="uniform"),
    shift=FixedShift(1.0),
    inputs=("noised", "timestep", "text"),
    text=(TextEncoding(gives="text", encoder="T5EncoderModel", max_tokens=226, masked=False),),
    autoencoder=Autoencoding(
        class_name="AutoencoderKLCogVideoX",
        channels=16,
        spatial_factor=8,
        temporal_factor=4,
        normalisation="raw * scaling_factor",
    ),
    spatial_patch=2,
    sampling=SamplingFigures(steps=50, guidance_scale=6.0),
    sources=(
        Source(
            "uniform i; error of the clip weighted by 1 / (1 - alpha^2), which is the plain error of v",
            "THUDM/CogVideo finetune/models/cogvideox_t2v/lora_trainer.py, compute_loss",
        ),
        Source("scaled-linear betas, v, zero terminal SNR, trailing steps", _CONVERSION),
        Source("SNR shift: 3 for 2B, 1 for 5B", f"{_CONVERSION}, snr_shift_scale"),
        Source(
            "the SNR's shift",
            f"{_SCHEDULER}:231",
            "self.alphas_cumprod / (snr_shift_scale + (1 - snr_shift_scale) * self.alphas_cumprod)",
        ),
        Source("the last step's alpha", f"{_SCHEDULER}:241", "torch.tensor(1.0) if set_alpha_to_one"),
        Source("226 tokens", f"{_PIPELINE}:529", "max_sequence_length: int = 226"),
        Source("encoder without mask", f"{_PIPELINE}:234", "self.text_encoder(text_input_ids.to(device))[0]"),
        Source("normalisation", f"{_PIPELINE}:353", "latents = 1 / self.vae_scaling_factor_image * latents"),
        Source("50 steps", f"{_PIPELINE}:514", "num_inference_steps: int = 50"),
        Source("guidance 6", f"{_PIPELINE}:516", "guidance_scale: float = 6"),
        Source("caption dropout 0.1", "THUDM/CogVideo sat/configs/cogvideox_5b.yaml, ucg_rate: 0.1"),
    ),
    notes=(
        "CogVideoX 1.5: latents of video are multiplied by the scaling factor like those of the other models "
        "(diffusers' decode_latents, video2video and the authors' trainer), only the conditioning image's "
        "are "
        "divided by it (`invert_scale_latents`); the authors' trainer multiplies those too, and finetrainers "
        "leaves video's as they are.",
        "CogVideoX 1.5 takes two latent frames a token: the first is repeated in front of an odd number, as "
        "the "
        "authors' trainer does.",
    ),
)

SMALL = replace(
    TEXT_TO_VIDEO,
    name="cogvideox-2b",
    summary="CogVideoX 2B, text to video",
    objective=replace(_V, snr_shift=3.0),
)

IMAGE_TO_VIDEO = replace(
    TEXT_TO_VIDEO,
    name="cogvideox-i2v",
    summary="CogVideoX 5B and 1.5, image to video",
    image=ImageConditioning(channels="first_frame", scaled="cogvideox", noise=(-3.0, 0.5), dropout=0.05),
    sources=(
        *TEXT_TO_VIDEO.sources,
        Source(
            "noise on the image: exp(N(-3, 0.5^2))",
            "THUDM/CogVideo finetune/models/cogvideox_i2v/lora_trainer.py, image_noise_sigma",
        ),
        Source(
            "image dropped in 0.05", "diffusers examples/cogvideo, cogvideox-factory: noised_image_dropout"
        ),
        Source("zeros after the first frame", f"{_IMAGE_PIPELINE}:402", "latent_padding = torch.zeros("),
        Source(
            "channels: noised, image", f"{_IMAGE_PIPELINE}:833", "torch.cat([latent_model_input, latent_im"
        ),
        Source(
            "image's latents divided in 1.5", f"{_IMAGE_PIPELINE}:392", "1 / self.vae_scaling_factor_image"
        ),
    ),
)

ALL = (TEXT_TO_VIDEO, SMALL, IMAGE_TO_VIDEO)


def recipe_of(config: Mapping[str, Any]) -> Recipe:
    """2B is the one without rotary positions; image to video takes twice the channels."""
    latent = int(config.get("out_channels") or 16)
    if int(config.get("in_channels", 16)) > latent:
        recipe = IMAGE_TO_VIDEO
    else:
        recipe = TEXT_TO_VIDEO if config.get("use_rotary_positional_embeddings", False) else SMALL
    tokens = int(config.get("max_text_seq_length", 226))
    return replace(recipe, text=(replace(recipe.text[0], max_tokens=tokens),)).with_sizes(
        channels=latent,
        temporal_patch=int(config.get("patch_size_t") or 1),
        spatial_patch=int(config.get("patch_size") or 2),
    )
