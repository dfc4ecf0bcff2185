"""Codecs: the exact one is exact, and diffusers' autoencoders do what their pipelines do."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.encoders import AUTOENCODERS, save_autoencoder
from vdsgen.errors import VdsgenError
from vdsgen.model.autoencoder import AutoencoderCodec, load_autoencoder
from vdsgen.model.latents import SpaceToDepthCodec, codec_for
from vdsgen.spec.data import Autoencoder, Data, SpaceToDepth


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 8), st.integers(1, 5), st.integers(1, 4), st.integers(1, 4), st.integers(0, 2**31))
def test_space_to_depth_is_a_bit_exact_permutation(
    factor: int, frames: int, h: int, w: int, seed: int
) -> None:
    codec = SpaceToDepthCodec(factor)
    video = (
        torch.rand(3, frames, h * factor, w * factor, generator=torch.Generator().manual_seed(seed)) * 2 - 1
    )
    latents = codec.encode(video)
    assert latents.shape == (codec.channels, frames, h, w) and latents.is_contiguous()
    assert torch.equal(codec.decode(latents), video)


def test_space_to_depth_orders_channels_by_colour_row_and_column() -> None:
    video = torch.arange(3 * 2 * 4 * 4, dtype=torch.float32).reshape(3, 2, 4, 4)
    latents = SpaceToDepthCodec(2).encode(video)
    for colour, row, column in ((0, 0, 0), (1, 0, 1), (2, 1, 0)):
        assert torch.equal(latents[colour * 4 + row * 2 + column], video[colour, :, row::2, column::2])


def test_the_spec_names_the_codec(tmp_path: Path) -> None:
    data = Data(videos="x", frames=4, height=16, width=16, latents=SpaceToDepth(factor=4))
    codec = codec_for(data)
    assert isinstance(codec, SpaceToDepthCodec)
    assert (codec.channels, codec.factor, codec.cheap) == (48, 4, True)


diffusers = pytest.importorskip("diffusers")


def spec_of(folder: Path, class_name: str) -> Autoencoder:
    channels, spatial, temporal = AUTOENCODERS[class_name][1]
    return Autoencoder(
        codec="autoencoder",
        path=str(folder),
        channels=channels,
        spatial_factor=spatial,
        temporal_factor=temporal,
    )


@pytest.mark.parametrize("class_name", AUTOENCODERS)
def test_autoencoders_load_from_a_folder_and_keep_the_declared_shapes(
    tmp_path: Path, class_name: str
) -> None:
    spec = spec_of(save_autoencoder(tmp_path, class_name), class_name)
    frames = 1 + 2 * spec.temporal_factor
    data = Data(videos="x", frames=frames, height=32, width=64, latents=spec)
    codec = codec_for(data)
    assert isinstance(codec, AutoencoderCodec) and not codec.cheap
    video = torch.rand(3, frames, 32, 64, generator=torch.Generator().manual_seed(1)) * 2 - 1
    latents = codec.encode(video)
    assert latents.shape == (
        codec.channels,
        3,
        32 // spec.spatial_factor,
        64 // spec.spatial_factor,
    )
    assert latents.dtype == torch.float32 and latents.isfinite().all() and latents.std() > 0
    assert not latents.requires_grad
    assert torch.equal(codec.encode(video), latents), "encoding must not be random"
    pixels = codec.decode(latents)
    assert pixels.shape == video.shape and pixels.isfinite().all()
    normalisation = codec.normalisation
    torch.testing.assert_close(normalisation.apply(normalisation.undo(latents)), latents)


def test_image_autoencoders_see_each_frame_by_itself(tmp_path: Path) -> None:
    codec = load_autoencoder(spec_of(save_autoencoder(tmp_path, "AutoencoderKL"), "AutoencoderKL"))
    video = torch.rand(3, 6, 16, 16) * 2 - 1
    frame = codec.encode(video[:, 5:])
    torch.testing.assert_close(codec.encode(video)[:, 5:], frame)
    # (raw - shift) * scale, as in pipelines/flux/pipeline_flux_img2img.py
    raw = codec.model.encode(video[:, 5:].transpose(0, 1)).latent_dist.mode()
    torch.testing.assert_close(frame.transpose(0, 1), (raw - 0.1) * 0.3)


def test_video_autoencoders_are_normalised_channel_by_channel(tmp_path: Path) -> None:
    codec = load_autoencoder(spec_of(save_autoencoder(tmp_path, "AutoencoderKLWan"), "AutoencoderKLWan"))
    video = torch.rand(3, 5, 32, 32) * 2 - 1
    raw = codec.model.encode(video[None]).latent_dist.mode()[0]
    config = codec.model.config
    mean, std = (torch.tensor(config[name])[:, None, None, None] for name in ("latents_mean", "latents_std"))
    torch.testing.assert_close(codec.encode(video), (raw - mean) / std)


def test_ltx_keeps_its_normalisation_in_the_weights(tmp_path: Path) -> None:
    folder = save_autoencoder(tmp_path, "AutoencoderKLLTXVideo", scaling_factor=2.0)
    model = diffusers.AutoencoderKLLTXVideo.from_pretrained(folder, low_cpu_mem_usage=False)
    model.latents_mean.fill_(0.5)
    model.latents_std.fill_(4.0)
    model.save_pretrained(folder)
    codec = load_autoencoder(spec_of(folder, "AutoencoderKLLTXVideo"))
    raw = torch.ones(8, 1, 1, 1)
    assert torch.equal(codec.normalisation.apply(raw), (raw - 0.5) * 2 / 4)


def test_inverted_scales_are_of_conditioning_images_alone(tmp_path: Path) -> None:
    """diffusers decodes CogVideoX 1.5's video from latents / scaling_factor, as it does CogVideoX's."""
    changes = {"invert_scale_latents": True, "scaling_factor": 0.7}
    folder = save_autoencoder(tmp_path, "AutoencoderKLCogVideoX", **changes)
    codec = load_autoencoder(spec_of(folder, "AutoencoderKLCogVideoX"))
    assert torch.allclose(codec.normalisation.apply(torch.ones(4, 1, 1, 1)), torch.tensor(0.7))


def test_ltx_decoders_that_want_a_time_get_one(tmp_path: Path) -> None:
    folder = save_autoencoder(tmp_path, "AutoencoderKLLTXVideo", timestep_conditioning=True)
    codec = load_autoencoder(spec_of(folder, "AutoencoderKLLTXVideo"))
    assert codec.decode(torch.randn(8, 2, 4, 4)).shape == (3, 5, 32, 32)


PUBLISHED = {
    # The classes' defaults are the published models': channels, spatial and temporal factor.
    "AutoencoderKLWan": (16, 8, 4),
    "AutoencoderKLLTXVideo": (128, 32, 8),
    "AutoencoderKLCogVideoX": (16, 8, 4),
    "AutoencoderKLMochi": (12, 8, 6),
    "AutoencoderKLHunyuanVideo": (16, 8, 4),
}


@pytest.mark.parametrize("class_name", PUBLISHED)
def test_figures_of_published_autoencoders_are_measured_right(class_name: str) -> None:
    from vdsgen.model.autoencoder import _measure

    figures = _measure(getattr(diffusers, class_name), {})
    measured = (figures.channels, figures.spatial_factor, figures.temporal_factor)
    assert measured == PUBLISHED[class_name]


def test_figures_that_do_not_match_are_named_with_both_sides(tmp_path: Path) -> None:
    folder = save_autoencoder(tmp_path, "AutoencoderKL")
    wrong = spec_of(folder, "AutoencoderKL").model_copy(update={"channels": 16, "temporal_factor": 4})
    with pytest.raises(VdsgenError) as caught:
        load_autoencoder(wrong)
    assert "data.latents.channels is 16, the autoencoder's is 4" in caught.value.message
    assert "data.latents.temporal_factor is 4, the autoencoder's is 1" in caught.value.message
    assert caught.value.remedy and "spatial_factor: 2" in caught.value.remedy


def test_folders_without_a_usable_autoencoder_are_refused(tmp_path: Path) -> None:
    spec = spec_of(tmp_path, "AutoencoderKL")
    with pytest.raises(VdsgenError, match=r"has no config.json"):
        load_autoencoder(spec)
    save_autoencoder(tmp_path / "vae", "AutoencoderKL")
    with pytest.raises(VdsgenError) as caught:
        load_autoencoder(spec)
    assert caught.value.remedy and str(tmp_path / "vae") in caught.value.remedy
    for content, message in (
        ("[]", "not a JSON object"),
        ('{"_class_name": "Oops"}', "'Oops'"),
        ("{", "JSON"),
    ):
        (tmp_path / "config.json").write_text(content)
        with pytest.raises(VdsgenError, match=message):
            load_autoencoder(spec)


def test_pickled_weights_are_refused(tmp_path: Path) -> None:
    folder = save_autoencoder(tmp_path, "AutoencoderKL")
    weights = next(folder.glob("*.safetensors"))
    torch.save({}, folder / "diffusion_pytorch_model.bin")
    weights.unlink()
    with pytest.raises(VdsgenError, match="cannot be loaded"):
        load_autoencoder(spec_of(folder, "AutoencoderKL"))
