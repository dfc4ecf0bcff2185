"""Encoders from a folder beside the family's own pipeline in diffusers, over the same tiny random weights."""

from __future__ import annotations

import pickle
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from tests.model.recipes.pipelines import diffusers_pipeline, save_pipeline
from tests.model.recipes.samples import recipe_named
from vdsgen.errors import VdsgenError
from vdsgen.model.cache.encoders import Encoders, MakeEncoders
from vdsgen.model.data.order import generator_for
from vdsgen.model.data.picture import to_unit_range
from vdsgen.model.recipes.draw import draw
from vdsgen.model.recipes.encoders.family import FamilyEncoders, MakeFamilyEncoders, encode_text, encode_video
from vdsgen.model.recipes.encoders.image import resized
from vdsgen.spec.recipes import ALL_RECIPES
from vdsgen.spec.recipes.recipe import Recipe

CAPTION = "A red  car &amp; a rabbit"
CLIP = torch.randint(0, 256, (3, 13, 32, 32), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)


def frames_for(recipe: Recipe) -> Tensor:
    """The clip at a length that the tiny autoencoder takes whole: three latent frames."""
    return CLIP[:, : {1: 3, 6: 13}.get(recipe.autoencoder.temporal_factor, 9)]


def prompts_of_pipeline(pipe: Any, recipe: Recipe) -> dict[str, Tensor]:
    """What the pipeline's encode_prompt gives for CAPTION, by our names."""
    tokens = {"max_sequence_length": recipe.text[0].max_tokens}
    if recipe.name == "latte":
        # A batch: captions are zeroed, not cut.
        found = pipe.encode_prompt([CAPTION, "a"], do_classifier_free_guidance=False, clean_caption=False)
        return {"text": found[0][0]}
    if recipe.name.startswith("hunyuan"):
        text, pooled, mask = pipe.encode_prompt(CAPTION, **tokens)
        return {"text": text[0], "pooled_text": pooled[0], "text_mask": mask[0]}
    found = pipe.encode_prompt(CAPTION, do_classifier_free_guidance=False, **tokens)
    if "text_mask" in recipe.cached:
        return {"text": found[0][0], "text_mask": found[1][0].long()}
    return {"text": found[0][0]}


@torch.no_grad()
@pytest.mark.parametrize(
    ("name", "pipeline"),
    [
        ("wan", "WanPipeline"),
        ("cogvideox", "CogVideoXPipeline"),
        ("ltx-video", "LTXPipeline"),
        ("hunyuan-video", "HunyuanVideoPipeline"),
        ("mochi", "MochiPipeline"),
        ("latte", "LattePipeline"),
    ],
)
def test_captions_are_encoded_as_the_pipeline_does(name: str, pipeline: str, tmp_path: Path) -> None:
    recipe = save_pipeline(tmp_path, recipe_named(name))
    (ours,) = encode_text(recipe, tmp_path, [CAPTION], torch.float32)
    expected = prompts_of_pipeline(diffusers_pipeline(tmp_path, recipe, pipeline), recipe)
    assert set(ours) == set(expected) == set(recipe.cached) - {"latents"}
    for key, tensor in expected.items():
        assert torch.allclose(ours[key].float(), tensor.float(), atol=1e-5), key
    assert ours["text"].shape == (recipe.text[0].max_tokens, 16)


@pytest.mark.parametrize("recipe", ALL_RECIPES, ids=lambda recipe: recipe.name)
def test_what_is_encoded_is_what_is_drawn_from(recipe: Recipe, tmp_path: Path) -> None:
    recipe = save_pipeline(tmp_path, recipe)
    encoders = FamilyEncoders(recipe, tmp_path)
    clip = frames_for(recipe)
    sample, again = encoders.encode(clip, CAPTION), FamilyEncoders(recipe, tmp_path).encode(clip, CAPTION)
    assert set(sample) == set(recipe.cached)
    assert all(torch.equal(sample[key], again[key]) for key in sample)
    assert sample["latents"].dtype == torch.float32
    if recipe.text:
        assert sample["text"].dtype == torch.bfloat16
    result = draw(recipe, sample, generator_for(0), empty=encoders.encode_text(""))
    assert result.inputs[0].shape[0] == recipe.autoencoder.channels + recipe.image_channels
    pixels = encoders.decode(sample["latents"])
    assert pixels.shape == clip.shape


@torch.no_grad()
def test_latents_decode_as_the_pipeline_does(tmp_path: Path) -> None:
    """CogVideoX 1.5's video latents are scaled as its pipelines do it, whatever invert_scale_latents says."""
    changes = {"scaling_factor": 0.7, "invert_scale_latents": True}
    recipe = save_pipeline(tmp_path, recipe_named("cogvideox"), **changes)
    pipe = diffusers_pipeline(tmp_path, recipe, "CogVideoXPipeline")
    latents = encode_video(recipe, tmp_path, frames_for(recipe))["latents"]
    expected = pipe.decode_latents(latents[None].transpose(1, 2))[0]
    assert torch.allclose(FamilyEncoders(recipe, tmp_path).decode(latents), expected, atol=1e-5)


@torch.no_grad()
@pytest.mark.parametrize("name", ["wan-i2v", "wan-i2v-clip"])
def test_wan_images_are_encoded_as_the_pipeline_does(name: str, tmp_path: Path) -> None:
    recipe = save_pipeline(tmp_path, recipe_named(name))
    pipe = diffusers_pipeline(tmp_path, recipe, "WanImageToVideoPipeline")
    clip = frames_for(recipe)
    ours = encode_video(recipe, tmp_path, clip, torch.float32)
    first = to_unit_range(clip[:, :1])[:, 0][None]
    _, condition = pipe.prepare_latents(
        first, 1, num_channels_latents=16, height=32, width=32, num_frames=clip.shape[1], dtype=torch.float32
    )
    sample = ours | {"text": torch.zeros(4, 16)}
    drawn = draw(recipe, sample, generator_for(0), empty={"text": torch.zeros(4, 16)})
    assert torch.allclose(drawn.inputs[0][16:], condition[0], atol=1e-5)
    if "image" in recipe.inputs:
        expected = pipe.encode_image(picture(clip), "cpu")[0]
        assert torch.allclose(ours["image"], expected, atol=1e-5)


@torch.no_grad()
def test_svd_images_are_encoded_as_the_pipeline_does(tmp_path: Path) -> None:
    recipe = save_pipeline(tmp_path, recipe_named("svd"))
    pipe = diffusers_pipeline(tmp_path, recipe, "StableVideoDiffusionPipeline")
    clip = frames_for(recipe)
    ours = encode_video(recipe, tmp_path, clip, torch.float32)
    expected = pipe._encode_image(picture(clip), "cpu", 1, False)[0]
    assert torch.allclose(ours["image_embedding"], expected, atol=1e-4)
    # Without noise: what the variants are of.
    assert recipe.image is not None
    still = replace(recipe, image=replace(recipe.image, noise=(-30.0, 0.0)))
    image = encode_video(still, tmp_path, clip)["image_latents"]
    plain = pipe._encode_vae_image(to_unit_range(clip[:, :1])[:, 0][None], "cpu", 1, False)[0]
    assert all(torch.allclose(variant, plain, atol=1e-5) for variant in image)
    assert not torch.equal(ours["image_latents"][0], ours["image_latents"][1])
    assert 0.005 < float(ours["image_noise"].mean()) < 0.5


@torch.no_grad()
def test_cogvideox_images_are_divided_where_the_autoencoder_says_so(tmp_path: Path) -> None:
    images = {}
    for invert in (False, True):
        folder = tmp_path / str(invert)
        recipe = save_pipeline(
            folder, recipe_named("cogvideox-i2v"), scaling_factor=0.7, invert_scale_latents=invert
        )
        images[invert] = encode_video(recipe, folder, frames_for(recipe))["image_latents"]
    assert torch.allclose(images[True] * 0.7, images[False] / 0.7, atol=1e-5)


def picture(clip: Tensor) -> Image.Image:
    return Image.fromarray(np.ascontiguousarray(clip[:, 0].permute(1, 2, 0).numpy()))


@pytest.mark.parametrize("size", [(576, 1024), (300, 300), (100, 180)])
def test_svd_resizes_as_the_pipeline_does(size: tuple[int, int]) -> None:
    from diffusers.pipelines.stable_video_diffusion import pipeline_stable_video_diffusion as svd

    image = torch.rand(1, 3, *size, generator=torch.Generator().manual_seed(1)) * 2 - 1
    assert torch.allclose(resized(image, 224), svd._resize_with_antialiasing(image, (224, 224)), atol=1e-5)


def test_a_fingerprint_changes_with_what_encodes(tmp_path: Path) -> None:
    recipe = save_pipeline(tmp_path, recipe_named("hunyuan-video"))
    make: MakeEncoders = pickle.loads(pickle.dumps(MakeFamilyEncoders(recipe, tmp_path)))
    before = {part: make("cpu").fingerprint(part) for part in ("clip", "text")}
    assert before["clip"] != before["text"]
    assert make("cpu").fingerprint("text") == before["text"]
    shorter = replace(recipe, text=(replace(recipe.text[0], max_tokens=128), recipe.text[1]))
    assert FamilyEncoders(shorter, tmp_path).fingerprint("text") != before["text"]
    assert FamilyEncoders(shorter, tmp_path).fingerprint("clip") == before["clip"]
    weights = tmp_path / "vae" / "diffusion_pytorch_model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(bytes(content))
    assert make("cpu").fingerprint("clip") != before["clip"]
    assert make("cpu").fingerprint("text") == before["text"]


def test_a_family_without_text_has_no_fingerprint_of_text(tmp_path: Path) -> None:
    recipe = save_pipeline(tmp_path, recipe_named("svd"))
    encoders: Encoders = MakeFamilyEncoders(recipe, tmp_path)("cpu")
    assert encoders.fingerprint("text") == ""
    assert encoders.encode_text("a red car") == {}


def test_large_weights_are_known_by_samples_of_them(tmp_path: Path) -> None:
    from vdsgen.model.recipes.encoders.folder import identity_of

    file = tmp_path / "model.safetensors"
    content = bytearray(8 * 2**20)
    seen = set()
    for change in (None, 0, 4 * 2**20, len(content) - 1):
        if change is not None:
            content[change] = 1
        file.write_bytes(bytes(content))
        seen.add(identity_of(tmp_path))
    assert len(seen) == 4


def test_another_familys_pipeline_is_refused(tmp_path: Path) -> None:
    save_pipeline(tmp_path, recipe_named("mochi"))
    with pytest.raises(VdsgenError, match="AutoencoderKLMochi"):
        encode_video(recipe_named("wan"), tmp_path, frames_for(recipe_named("wan")))
    other = replace(recipe_named("mochi").autoencoder, temporal_factor=4)
    with pytest.raises(VdsgenError, match="6 x in time; the model is trained on 12, 8 x and 4 x"):
        encode_video(replace(recipe_named("mochi"), autoencoder=other), tmp_path, CLIP[:, :1])
    with pytest.raises(VdsgenError, match="of the type t5, not llama"):
        encode_text(recipe_named("hunyuan-video"), tmp_path, ["a"])
    with pytest.raises(VdsgenError, match="no folder image_encoder; it has text_encoder, tokenizer, vae"):
        FamilyEncoders(recipe_named("wan-i2v-clip"), tmp_path).fingerprint("clip")
    (tmp_path / "text_encoder" / "model.safetensors").write_bytes(b"nothing")
    with pytest.raises(VdsgenError, match="cannot be loaded"):
        encode_text(recipe_named("mochi"), tmp_path, ["a"])


@pytest.mark.parametrize("name", ["wan", "svd"])
def test_encoders_of_a_pipeline_that_was_fetched_in_half_precision_are_found(
    name: str, tmp_path: Path
) -> None:
    recipe = save_pipeline(tmp_path, recipe_named(name))
    clip = frames_for(recipe)
    whole = FamilyEncoders(recipe, tmp_path).encode(clip, CAPTION)
    files = sorted(tmp_path.glob("*/*.safetensors"))
    for file in files:
        file.rename(file.with_suffix(".fp16.safetensors"))
    assert len(files) == 2
    found = FamilyEncoders(recipe, tmp_path).encode(clip, CAPTION)
    assert found.keys() == whole.keys()
    for key, tensor in whole.items():
        assert torch.equal(found[key], tensor), key
