"""diffusers' autoencoders as latent codecs, from a local folder."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from vdsgen.errors import VdsgenError
from vdsgen.model.weight_files import DIFFUSERS, variant_of
from vdsgen.spec.data import Autoencoder

IMAGE_CLASSES = frozenset(
    {"AutoencoderKL", "AutoencoderKLTemporalDecoder", "AutoencoderDC", "AutoencoderTiny"}
)
"""Encode each frame by itself."""

VIDEO_CLASSES = frozenset(
    {
        "AutoencoderKLCogVideoX",
        "AutoencoderKLHunyuanVideo",
        "AutoencoderKLLTXVideo",
        "AutoencoderKLMochi",
        "AutoencoderKLWan",
    }
)
"""Causal: keep the first frame by itself, and take the rest `temporal_factor` at a time."""

FRAMES_AT_ONCE = 4
"""Of an image autoencoder. Fixed, so that latents do not depend on anything but the clip."""

_PROBE_FRAMES, _PROBE_EDGE = 25, 256
"""1 + 24 frames tell temporal factors 1, 2, 3, 4, 6, 8 and 12; 256 pixels spatial ones up to 128."""


@dataclass(frozen=True, slots=True)
class Figures:
    """What an autoencoder does to a clip's shape."""

    channels: int
    spatial_factor: int
    temporal_factor: int


@dataclass(frozen=True, slots=True)
class Normalisation:
    """latents = (raw - mean) * scale, per channel, as the diffusers pipelines of each family apply it."""

    mean: torch.Tensor
    """(C, 1, 1, 1)"""
    scale: torch.Tensor
    """(C, 1, 1, 1)"""

    def apply(self, raw: torch.Tensor) -> torch.Tensor:
        return (raw - self.mean.to(raw)) * self.scale.to(raw)

    def undo(self, latents: torch.Tensor) -> torch.Tensor:
        return latents / self.scale.to(latents) + self.mean.to(latents)


class AutoencoderCodec:
    """One clip at a time through a frozen autoencoder, in float32, without gradients.

    Takes the posterior's mode, not a sample of it: the same clip has the same latents in every epoch
    and on every rank.
    """

    cheap = False

    def __init__(self, model: Any, figures: Figures, device: torch.device | str) -> None:
        self.model = model.to(device).eval().requires_grad_(False)
        self.figures = figures
        self.device = torch.device(device)
        self.normalisation = normalisation_of(model, figures.channels)
        self._by_frame = type(model).__name__ in IMAGE_CLASSES

    @property
    def channels(self) -> int:
        return self.figures.channels

    @torch.no_grad()
    def encode(self, video: torch.Tensor) -> torch.Tensor:
        """(3, T, H, W) in [-1, 1] -> (C, T', H', W') on the codec's device; T' = 1 + (T - 1) / factor."""
        return self.normalisation.apply(self.encode_raw(video)).contiguous()

    @torch.no_grad()
    def encode_raw(self, video: torch.Tensor) -> torch.Tensor:
        """As `encode`, but as the encoder gives them."""
        pixels = video.to(self.device, torch.float32)
        if self._by_frame:
            frames = torch.split(pixels.transpose(0, 1), FRAMES_AT_ONCE)
            return torch.cat([_raw(self.model.encode(some)) for some in frames]).transpose(0, 1)
        return _raw(self.model.encode(pixels[None]))[0]

    @torch.no_grad()
    def decode(self, latents: torch.Tensor) -> torch.Tensor:
        """(C, T', H', W') -> (3, T, H, W) on the codec's device."""
        raw = self.normalisation.undo(latents.to(self.device, torch.float32))
        name = type(self.model).__name__
        if name == "AutoencoderKLTemporalDecoder":
            # Its decoder looks at neighbouring frames.
            return _picture(self.model.decode(raw.transpose(0, 1), num_frames=raw.shape[1])).transpose(0, 1)
        if self._by_frame:
            frames = torch.split(raw.transpose(0, 1), FRAMES_AT_ONCE)
            return torch.cat([_picture(self.model.decode(some)) for some in frames]).transpose(0, 1)
        if name == "AutoencoderKLLTXVideo" and self.model.config.timestep_conditioning:
            # A decoder that also denoises; time 0: what it is given is clean.
            return _picture(self.model.decode(raw[None], torch.zeros(1, device=self.device)))[0]
        return _picture(self.model.decode(raw[None]))[0]


def load_autoencoder(spec: Autoencoder, device: torch.device | str = "cpu") -> AutoencoderCodec:
    """Loads config.json and safetensors from `spec.path`; nothing from the network, no pickles.

    Raises VdsgenError where the folder does not hold a known autoencoder, or one with other figures
    than `spec` says.
    """
    return _loaded(Path(spec.path), device, spec)


def open_autoencoder(folder: Path, device: torch.device | str = "cpu") -> AutoencoderCodec:
    """As `load_autoencoder`, whatever its figures are."""
    return _loaded(folder, device, None)


def _loaded(folder: Path, device: torch.device | str, spec: Autoencoder | None) -> AutoencoderCodec:
    class_name = _class_name(folder)
    with _loading(folder):
        import diffusers

        model_class = getattr(diffusers, class_name, None)
        if model_class is None:
            raise VdsgenError(
                f"diffusers {diffusers.__version__} has no {class_name}",
                remedy="install a newer diffusers",
            )
        config = model_class.load_config(str(folder), local_files_only=True)
        figures = _measure(model_class, config)
    if spec is not None:
        _check_figures(spec, figures, class_name)
    with _loading(folder):
        model = model_class.from_pretrained(
            str(folder),
            local_files_only=True,
            use_safetensors=True,
            variant=variant_of(folder, DIFFUSERS),
            torch_dtype=torch.float32,
            low_cpu_mem_usage=False,  # needs the package accelerate, for models that are not small
        )
    return AutoencoderCodec(model, figures, device)


def normalisation_of(model: Any, channels: int) -> Normalisation:
    """From the configuration (LTX keeps mean and deviation in its weights).

    (raw - shift - latents_mean) * scaling_factor / latents_std. diffusers 0.42, pipelines/:
    ltx/pipeline_ltx.py:456, wan/pipeline_wan.py:664, mochi/pipeline_mochi.py:700,
    flux/pipeline_flux_img2img.py:474. Latents of video are multiplied in CogVideoX 1.5 too
    (cogvideo/pipeline_cogvideox_video2video.py:388 and :402): its `invert_scale_latents` is of conditioning
    images alone (cogvideo/pipeline_cogvideox_image2video.py:387).
    """
    config = model.config
    buffers = dict(model.named_buffers())

    def of(name: str, default: float) -> torch.Tensor:
        value = buffers.get(name, config.get(name))
        value = torch.as_tensor(default if value is None else value, dtype=torch.float32).detach().cpu()
        return value.expand(channels).reshape(channels, 1, 1, 1).clone()

    scaling = of("scaling_factor", 1.0)
    return Normalisation(
        mean=of("shift_factor", 0.0) + of("latents_mean", 0.0), scale=scaling / of("latents_std", 1.0)
    )


def _class_name(folder: Path) -> str:
    config = folder / "config.json"
    if not config.is_file():
        remedy = "name the folder that holds the autoencoder's config.json and safetensors"
        if (folder / "vae" / "config.json").is_file():
            remedy = f"this is a whole pipeline: name {folder / 'vae'}"
        raise VdsgenError(f"data.latents.path: {folder} has no config.json", remedy=remedy)
    try:
        name = json.loads(config.read_text(encoding="utf-8")).get("_class_name")
    except (OSError, ValueError, AttributeError, RecursionError) as error:
        raise VdsgenError(f"data.latents.path: {config} is not a JSON object: {error}") from error
    if name not in IMAGE_CLASSES | VIDEO_CLASSES:
        raise VdsgenError(
            f"data.latents.path: {config} is of the class {name!r}, which is not a known autoencoder",
            remedy=f"known are {', '.join(sorted(IMAGE_CLASSES | VIDEO_CLASSES))}",
        )
    return str(name)


@contextmanager
def _loading(folder: Path) -> Iterator[None]:
    """Whatever diffusers says about a folder becomes one line."""
    try:
        yield
    except ImportError as error:
        raise VdsgenError(
            f"an autoencoder needs the package diffusers ({error})", remedy="pip install 'vdsgen[pretrained]'"
        ) from error
    except (OSError, ValueError, TypeError, KeyError, AttributeError, RuntimeError) as error:
        words = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise VdsgenError(
            f"data.latents.path: {folder} cannot be loaded: {words}",
            remedy="it must hold config.json and diffusion_pytorch_model.safetensors",
        ) from error


@torch.no_grad()
def _measure(model_class: Any, config: dict[str, Any]) -> Figures:
    """Runs the encoder on the meta device, where shapes are computed and nothing else."""
    with torch.device("meta"):
        model = model_class.from_config(config).eval()
        if model_class.__name__ in IMAGE_CLASSES:
            raw = _raw(model.encode(torch.empty(1, 3, _PROBE_EDGE, _PROBE_EDGE)))
            return Figures(raw.shape[1], _PROBE_EDGE // raw.shape[-1], 1)
        raw = _raw(model.encode(torch.empty(1, 3, _PROBE_FRAMES, _PROBE_EDGE, _PROBE_EDGE)))
    steps = raw.shape[2] - 1
    return Figures(
        raw.shape[1], _PROBE_EDGE // raw.shape[-1], (_PROBE_FRAMES - 1) // steps if steps else _PROBE_FRAMES
    )


def _check_figures(spec: Autoencoder, figures: Figures, class_name: str) -> None:
    wrong = [
        f"data.latents.{key} is {getattr(spec, key)}, the autoencoder's is {getattr(figures, key)}"
        for key in ("channels", "spatial_factor", "temporal_factor")
        if getattr(spec, key) != getattr(figures, key)
    ]
    if wrong:
        raise VdsgenError(
            f"{spec.path} ({class_name}) is not what the experiment says: " + "; ".join(wrong),
            remedy=f"set channels: {figures.channels}, spatial_factor: {figures.spatial_factor}, "
            f"temporal_factor: {figures.temporal_factor}, and plan again",
        )


def _raw(output: Any) -> torch.Tensor:
    """The latents in what `encode` returns."""
    for name in ("latent", "latents"):
        if hasattr(output, name):
            return getattr(output, name)  # type: ignore[no-any-return]
    return output.latent_dist.mode()  # type: ignore[no-any-return]


def _picture(output: Any) -> torch.Tensor:
    return output.sample  # type: ignore[no-any-return]
