"""HunyuanVideo: rectified flow; LLaMA states and CLIP's pooled state; guidance may be embedded."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
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

_PIPELINE = "diffusers/pipelines/hunyuan_video/pipeline_hunyuan_video.py"

TEMPLATE = (
    "<|start_header_id|>system<|end_header_id|>\n\nDescribe the video by detailing the following aspects: "
    "1. The main content and theme of the video."
    "2. The color, shape, size, texture, quantity, text, and spatial relationships of the objects."
    "3. Actions, events, behaviors temporal relationships, physical movement changes of the objects."
    "4. background environment, light, style and atmosphere."
    "5. camera angles, movements, and transitions used in the video:<|eot_id|>"
    "<|start_header_id|>user<|end_header_id|>\n\n{}<|eot_id|>"
)
"""The words around each caption; the first 95 tokens are cut off again."""

DISTILLED = Recipe(
    name="hunyuan-video",
    summary="HunyuanVideo, text to video, guidance embedded",
    class_name="HunyuanVideoTransformer3DModel",
    objective=RectifiedFlow(),
    timesteps=TimestepSampling(kind="logit_normal"),
    shift=FixedShift(7.0),
    inputs=("noised", "timestep", "text", "text_mask", "pooled_text", "guidance"),
    text=(
        TextEncoding(
            gives="text", encoder="LlamaModel", max_tokens=256, layer=-3, template=TEMPLATE, crop=95
        ),
        TextEncoding(
            gives="pooled_text",
            encoder="CLIPTextModel",
            folder="text_encoder_2",
            tokenizer="tokenizer_2",
            max_tokens=77,
            masked=False,
        ),
    ),
    autoencoder=Autoencoding(
        class_name="AutoencoderKLHunyuanVideo",
        channels=16,
        spatial_factor=8,
        temporal_factor=4,
        normalisation="raw * scaling_factor",
    ),
    guidance=1.0,
    condition_dropout=0.0,
    spatial_patch=2,
    sampling=SamplingFigures(steps=50, guidance_scale=1.0, embedded_guidance=6.0, shift=FixedShift(7.0)),
    sources=(
        Source("velocity target", "finetrainers models/hunyuan_video/base_specification.py, forward"),
        Source("timestep given as 1000 t", f"{_PIPELINE}:676", "timestep = t.expand(latents.shape[0])"),
        Source("logit-normal t", "diffusion-pipe models/hunyuan_video.py, prepare_inputs"),
        Source("training shift 7", "musubi-tuner docs/hunyuan_video.md, timestep_sampling shift, 7.0"),
        Source("sampling shift 7", "diffusers scripts/convert_hunyuan_video_to_diffusers.py, shift=7.0"),
        Source("embedded guidance 1 in training", "diffusion-pipe models/hunyuan_video.py; finetrainers"),
        Source("guidance told as 1000 times", f"{_PIPELINE}:659", "device=device) * 1000.0"),
        Source("template cropped by 95", f"{_PIPELINE}:80", '"crop_start": 95'),
        Source("256 tokens", f"{_PIPELINE}:468", "max_sequence_length: int = 256"),
        Source(
            "LLaMA's third state from the end",
            f"{_PIPELINE}:249",
            ").hidden_states[-(num_hidden_layers_to_skip + 1)]",
        ),
        Source("CLIP's pooled state of 77 tokens", f"{_PIPELINE}:271", "max_sequence_length: int = 77"),
        Source("normalisation", f"{_PIPELINE}:726", "/ self.vae.config.scaling_factor"),
        Source("embedded guidance 6 in sampling", f"{_PIPELINE}:452", "guidance_scale: float = 6.0"),
        Source("no classifier-free guidance", f"{_PIPELINE}:451", "true_cfg_scale: float = 1.0"),
        Source("50 steps", f"{_PIPELINE}:449", "num_inference_steps: int = 50"),
        Source(
            "no caption dropped",
            "this project's choice: without classifier-free guidance nothing asks for what it teaches",
        ),
    ),
    notes=(
        "diffusion-pipe does not shift unless told to; musubi-tuner's example shifts by 7, and advises 3 "
        "where "
        "details are not learned.",
        "The published weights are distilled for guidance: trainers tell them a guidance of 1, samplers 6.",
    ),
)

_OF_DISTILLED = (
    "no caption dropped",
    "no classifier-free guidance",
    "embedded guidance 1 in training",
    "embedded guidance 6 in sampling",
    "guidance told as 1000 times",
)

PLAIN = replace(
    DISTILLED,
    name="hunyuan-video-plain",
    summary="HunyuanVideo, text to video, without embedded guidance",
    inputs=DISTILLED.inputs[:-1],
    guidance=None,
    condition_dropout=0.1,
    sampling=replace(DISTILLED.sampling, guidance_scale=6.0, embedded_guidance=None),
    sources=(
        *(source for source in DISTILLED.sources if source.figure not in _OF_DISTILLED),
        Source("guidance 6, caption dropout 0.1", "this project's choice; no such weights are published"),
    ),
)

ALL = (DISTILLED, PLAIN)


def recipe_of(config: Mapping[str, Any]) -> Recipe:
    if config.get("image_condition_type") is not None:
        raise ValueError("image_condition_type is set; recipes of HunyuanVideo are of text to video")
    recipe = DISTILLED if config.get("guidance_embeds", True) else PLAIN
    return recipe.with_sizes(
        channels=int(config.get("out_channels") or 16),
        temporal_patch=int(config.get("patch_size_t") or 1),
        spatial_patch=int(config.get("patch_size") or 2),
    )
