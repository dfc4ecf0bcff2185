"""How a family of diffusers models is trained and sampled: the figures, without torch.

Time t is in [0, 1] everywhere here: 0 is the clip, 1 is noise. What a module is told instead, and in which
unit, is the objective's affair. The computing part is vdsgen/model/recipes; docs/recipes.md is made of this.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Literal, NamedTuple

TimestepKind = Literal["uniform", "logit_normal", "mode"]
TensorName = Literal[
    "noised",
    "timestep",
    "text",
    "text_mask",
    "pooled_text",
    "guidance",
    "image",
    "image_embedding",
    "added_time_ids",
    "latents",
    "image_latents",
    "image_noise",
]

IMAGE_NOISE_VARIANTS = 4
"""Noised copies of the conditioning image that are encoded for each clip, where a family noises it in
pixels: the autoencoder does not run in the step, so a sample picks one of them."""


class Source(NamedTuple):
    """Where a figure stands."""

    figure: str
    """What it is the source of."""
    place: str
    """`diffusers/...:LINE` in the installed package; a paper; or a trainer's file."""
    text: str = ""
    """What stands at that line of diffusers."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TimestepSampling:
    """How t is drawn, before the shift (arXiv 2403.03206, section 3.1)."""

    kind: TimestepKind = "logit_normal"
    mean: float = 0.0
    """Of log(t / (1 - t)), which for EDM is log sigma; logit_normal only."""
    std: float = 1.0
    mode_scale: float = 1.29
    """mode only."""
    low: float = 0.0
    """Lowest t after the shift: the distribution is cut there, as for one expert of Wan 2.2."""
    high: float = 1.0


@dataclass(frozen=True, slots=True)
class FixedShift:
    """t -> shift * t / (1 + (shift - 1) * t), whatever the clip's size."""

    value: float = 1.0

    def of(self, tokens: int, pixels: int) -> float:  # noqa: ARG002
        return self.value

    def __str__(self) -> str:
        return f"{self.value:g}"


@dataclass(frozen=True, slots=True)
class AreaShift:
    """One shift up to an area of a frame, another one above."""

    up_to: float
    above: float
    pixels: int
    """Largest frame, in pixels, that `up_to` holds for."""

    def of(self, tokens: int, pixels: int) -> float:  # noqa: ARG002
        return self.up_to if pixels <= self.pixels else self.above

    def __str__(self) -> str:
        return f"{self.up_to:g} up to {self.pixels} pixels a frame, else {self.above:g}"


@dataclass(frozen=True, slots=True)
class TokenShift:
    """exp(mu), mu linear in the clip's tokens through two points, and on beyond them."""

    tokens: tuple[int, int]
    mu: tuple[float, float]

    def of(self, tokens: int, pixels: int) -> float:  # noqa: ARG002
        slope = (self.mu[1] - self.mu[0]) / (self.tokens[1] - self.tokens[0])
        return math.exp(self.mu[0] + slope * (tokens - self.tokens[0]))

    def __str__(self) -> str:
        return f"exp({self.mu[0]:g} at {self.tokens[0]} tokens ... {self.mu[1]:g} at {self.tokens[1]})"


@dataclass(frozen=True, slots=True)
class RootShift:
    """sqrt(tokens / base): `shift: resolution` of the bundled family (arXiv 2403.03206, section 5.3.2)."""

    base: int = 256

    def of(self, tokens: int, pixels: int) -> float:  # noqa: ARG002
        return math.sqrt(tokens / self.base)

    def __str__(self) -> str:
        return f"sqrt(tokens / {self.base})"


Shift = FixedShift | AreaShift | TokenShift | RootShift


@dataclass(frozen=True, slots=True, kw_only=True)
class RectifiedFlow:
    """noised = (1 - t) * clean + t * noise; the module predicts noise - clean, at timestep 1000 * t."""

    reversed_time: bool = False
    """The module is told 1000 * (1 - t) and predicts clean - noise."""
    sampling_schedule: Literal["linear", "linear_quadratic"] = "linear"
    """Of t over the steps of sampling, before the shift."""
    terminal: float | None = None
    """Sampling: the last t above 0, to which the shifted schedule is stretched."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ScheduledNoise:
    """noised = alpha[i] * clean + sigma[i] * noise, alpha^2 + sigma^2 = 1, i = 0 ... 999.

    Betas from beta_start to beta_end, evenly (`linear`) or with even roots (`scaled_linear`).
    """

    prediction: Literal["v", "epsilon"]
    beta_start: float
    beta_end: float
    betas: Literal["linear", "scaled_linear"]
    snr_shift: float = 1.0
    """The signal-to-noise ratio is divided by it."""
    zero_terminal_snr: bool = False
    """alpha[999] is 0: alphas are shifted and scaled (arXiv 2305.08891, algorithm 1)."""
    spacing: Literal["leading", "trailing"] = "leading"
    """Which i sampling takes (arXiv 2305.08891, table 2)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Edm:
    """noised = clean + sigma * noise (arXiv 2206.00364), for a module that was made for v: c_in = c_out' =
    1 / sqrt(sigma^2 + 1), c_skip = 1 / (sigma^2 + 1), c_out = -sigma / sqrt(sigma^2 + 1), c_noise =
    log(sigma) / 4, and the loss of the denoised clip weighted by (1 + sigma^2) / sigma^2 = 1 / c_out^2: the
    plain loss of v = (noise - sigma * clean) / sqrt(sigma^2 + 1)."""

    sigma_min: float = 0.002
    """Sampling: the last sigma above 0."""
    sigma_max: float = 700.0
    """Sampling: the first sigma."""
    rho: float = 7.0


Objective = RectifiedFlow | ScheduledNoise | Edm


@dataclass(frozen=True, slots=True, kw_only=True)
class TextEncoding:
    """One text encoder of a pipeline's folder, and what becomes of its output."""

    gives: Literal["text", "pooled_text"]
    encoder: str
    """transformers class."""
    folder: str = "text_encoder"
    tokenizer: str = "tokenizer"
    max_tokens: int
    masked: bool = True
    """The encoder is told which tokens are padding."""
    layer: int | None = None
    """Which of `hidden_states`; None: the last, after the final norm."""
    padding: Literal["kept", "zeroed"] = "kept"
    """What stands at the places of padding: what the encoder gives there, or zeros."""
    cleaning: Literal["none", "whitespace", "lower"] = "none"
    template: str = "{}"
    crop: int = 0
    """Tokens of the template that are cut off in front, and encoded besides max_tokens."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageConditioning:
    """What a model is shown of the clip's first frame."""

    channels: Literal["masked_clip", "first_frame", "repeated_frame"]
    """masked_clip: a mask of `temporal_factor` channels (1 at the first latent frame), then the encoding of a
    clip that is grey after its first frame. first_frame: the first frame's latents, zeros after it.
    repeated_frame: the first frame's latents at every frame."""
    scaled: Literal["as_latents", "raw", "cogvideox"]
    """raw: as the encoder gives them. cogvideox: as latents, or divided by the scaling factor where the
    autoencoder says `invert_scale_latents`."""
    embedding: Literal["hidden_states", "projected"] | None = None
    """Of a CLIP image encoder: all its last but one hidden states, or its projected class token."""
    noise: tuple[float, float] | None = None
    """Mean and deviation of the logarithm of the noise on the frame's pixels in [-1, 1]; None: none."""
    dropout: float = 0.0
    """Share of samples whose image channels are zeros."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SamplingFigures:
    """What the pipeline samples with if nothing is said."""

    steps: int
    guidance_scale: float
    """Of classifier-free guidance; 1: none."""
    first_frame_guidance: float | None = None
    """The scale grows evenly over the frames, from this one; None: the same for all."""
    embedded_guidance: float | None = None
    """What a guidance-distilled module is told."""
    shift: Shift = FixedShift()


@dataclass(frozen=True, slots=True, kw_only=True)
class Autoencoding:
    """The autoencoder of a pipeline's folder: shapes, and how its latents are brought to unit size."""

    class_name: str
    channels: int
    spatial_factor: int
    temporal_factor: int
    normalisation: str
    """The formula, with the names of the autoencoder's own figures."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MicroConditions:
    """Numbers that a module is told about each clip."""

    frame_rate: float = 7.0
    """Frames a second, told as frame_rate - 1, where the experiment's clips are sampled at no rate."""
    motion_bucket_id: int = 127


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """All of one family's training."""

    name: str
    summary: str
    class_name: str
    """In diffusers."""
    objective: Objective
    timesteps: TimestepSampling
    shift: Shift
    """In training."""
    inputs: tuple[TensorName, ...]
    """What the first layer takes, in order."""
    text: tuple[TextEncoding, ...] = ()
    empty_text: Literal["encoded", "zeros"] = "encoded"
    """What stands for no caption: the empty caption's encoding, or zeros (and a mask of zeros)."""
    autoencoder: Autoencoding
    image: ImageConditioning | None = None
    micro_conditions: MicroConditions | None = None
    guidance: float | None = None
    """What a guidance-distilled module is told in training; None: it is told nothing."""
    condition_dropout: float = 0.1
    """Share of samples trained without their caption (or without their image, for SVD: that share without its
    embedding, that without its latents, and that without either)."""
    first_frame_share: float | None = None
    """Share of samples whose first latent frame is given without noise, each frame with its own timestep;
    None: the module takes one timestep for all."""
    temporal_patch: int = 1
    """Latent frames that become one token: the first frame is repeated in front until it divides them."""
    spatial_patch: int = 1
    sampling: SamplingFigures
    sources: tuple[Source, ...]
    notes: tuple[str, ...] = ()
    """What differs between sources, and what is not done."""

    @property
    def cached(self) -> tuple[TensorName, ...]:
        """Names of the tensors that are encoded once for each clip and caption."""
        names: list[TensorName] = ["latents"]
        for encoding in self.text:
            names.append(encoding.gives)
            if encoding.gives == "text" and "text_mask" in self.inputs:
                names.append("text_mask")
        names += [name for name in ("image", "image_embedding") if name in self.inputs]
        if self.image:
            names += ["image_latents", *(("image_noise",) if self.image.noise else ())]
        return tuple(names)

    @property
    def gives_first_frame(self) -> bool:
        """Some samples' first frame is given: timesteps and weights are of frames then."""
        return bool(self.first_frame_share)

    @property
    def image_channels(self) -> int:
        """Channels that are put behind the noised ones."""
        if self.image is None:
            return 0
        mask = self.autoencoder.temporal_factor if self.image.channels == "masked_clip" else 0
        return self.autoencoder.channels + mask

    def tokens(self, frames: int, height: int, width: int) -> int:
        """Of a latent clip."""
        return (
            -(-frames // self.temporal_patch) * (height // self.spatial_patch) * (width // self.spatial_patch)
        )

    def with_sizes(self, *, channels: int, temporal_patch: int = 1, spatial_patch: int) -> Recipe:
        """For a model of these latent channels and patches."""
        return replace(
            self,
            autoencoder=replace(self.autoencoder, channels=channels),
            temporal_patch=temporal_patch,
            spatial_patch=spatial_patch,
        )
