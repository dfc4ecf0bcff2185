"""The clips to train on: sizes, encoders, loading and the cache."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal, Self

from pydantic import Field, model_validator

from vdsgen.spec.base import (
    NonNegativeInt,
    PathText,
    PositiveFloat,
    PositiveInt,
    Spec,
    SpecError,
    SpecWithOptions,
)


class SpaceToDepth(Spec):
    """An exact latent codec without weights: a square of pixels becomes channels."""

    codec: Literal["space_to_depth"] = "space_to_depth"
    factor: PositiveInt = 8

    @property
    def channels(self) -> int:
        return 3 * self.factor**2

    @property
    def spatial_factor(self) -> int:
        return self.factor

    @property
    def temporal_factor(self) -> int:
        return 1


class Autoencoder(Spec):
    """A diffusers autoencoder in a local folder, and its figures, so that plans need no weights."""

    codec: Literal["autoencoder"]
    path: PathText
    """Local folder with config.json and safetensors."""
    channels: PositiveInt
    spatial_factor: PositiveInt
    temporal_factor: PositiveInt = 1
    """Frames a latent frame stands for; a causal autoencoder keeps the first frame by itself."""


class TextEncoder(Spec):
    """A transformers text encoder in a local folder, run once for each caption."""

    path: PathText
    max_tokens: PositiveInt = 128


class ClipSize(Spec):
    """Frames, and pixels of each."""

    frames: PositiveInt
    height: PositiveInt
    width: PositiveInt

    def __str__(self) -> str:
        return f"{self.frames} x {self.height} x {self.width}"


class LatentCache(Spec):
    """What encoders give, kept on disk: latents of fixed windows of clips, and embeddings of captions."""

    folder: PathText
    """Where; several runs and hosts may share one."""
    windows_per_clip: PositiveInt = 1
    """Windows of each clip at each size, evenly spread from its first frame to its last; of one, the
    middle."""
    dtype: Literal["fp32", "fp16", "bf16"] = "fp16"
    """What latents are stored in; text embeddings stay as their encoder gives them."""
    shard_mib: Annotated[int, Field(ge=1, le=2**20)] = 256
    """A file is closed when it holds as much: what an interruption of a writer loses at most."""


class Data(SpecWithOptions):
    """The clips, and what the loader makes of them."""

    written_where_set: ClassVar[frozenset[str]] = frozenset(
        {"bucketing", "bucket_every", "cache", "pipeline"}
    )

    videos: PathText
    """Folder searched for .mp4, .webm, .mkv, .mov, .avi and .gif."""
    clips: PositiveInt | None = None
    """How many there are: plans then say how long one pass over them takes. Training counts for itself."""
    frames: PositiveInt
    height: PositiveInt
    width: PositiveInt
    buckets: tuple[ClipSize, ...] = ()
    """Further sizes that clips are trained at, each as often as frames x height x width: every step takes
    one size for all its clips."""
    bucketing: Literal["every", "nearest"] = "every"
    """every: each clip that is long enough for a size is trained at it. nearest: at one size alone, the one
    nearest to its own shape, and of equally near ones the longest; sizes come as often as they have clips."""
    bucket_every: Literal["step", "micro_batch"] = "step"
    """What takes one size for all its clips."""
    frame_rate: PositiveFloat | None = None
    """Frames a second that clips are sampled at; None: the video's own."""
    latents: Annotated[SpaceToDepth | Autoencoder, Field(discriminator="codec")] = SpaceToDepth()
    text_encoder: TextEncoder | None = None
    """None: a caption is hashed to a class (condition: class), or not used."""
    pipeline: PathText | None = None
    """Local folder of a diffusers pipeline: a diffusers model's own autoencoder and encoders, in the place of
    `latents` and `text_encoder`. None: latents are `latents`, and captions are not used."""
    workers: NonNegativeInt = 2
    """Loader processes a rank; 0 decodes in the training process."""
    prefetch: PositiveInt = 4
    """Samples that each worker keeps ready."""
    decoded_cache_mib: NonNegativeInt = 128
    """Where all clips, decoded and resized, fit into this, each worker decodes them once and keeps them
    (not with random crops). Changes no sample."""
    random_flip: bool = False
    """Mirror half of the samples left to right."""
    crop: Literal["center", "random"] = "center"
    """Where along the side that is too long for height x width. A model trained on random crops learns
    to cut heads off (arXiv 2307.01952, section 2.2)."""
    cache: LatentCache | None = None
    """None: clips are decoded and encoded each time that they are trained on."""

    @property
    def sizes(self) -> tuple[ClipSize, ...]:
        """Every size that clips are trained at: frames x height x width, then the buckets."""
        return (ClipSize(frames=self.frames, height=self.height, width=self.width), *self.buckets)

    @model_validator(mode="after")
    def _sizes_divide(self) -> Self:
        for index, size in enumerate(self.sizes):
            self._check_size(size, size_key(index))
        return self

    @model_validator(mode="after")
    def _sizes_differ(self) -> Self:
        for index, size in enumerate(self.sizes):
            first = self.sizes.index(size)
            if first < index:
                other = size_key(first) or "frames, height and width"
                raise SpecError(
                    size_key(index), f"is the size of {other} again ({size})", remedy="leave it out"
                )
        return self

    @model_validator(mode="after")
    def _cache_holds_windows(self) -> Self:
        if self.cache is not None and self.crop == "random":
            raise SpecError(
                "crop",
                "crop: random cuts a clip anew each time, and data.cache holds the latents of fixed windows",
                remedy="set crop: center, or leave data.cache out",
            )
        return self

    def _check_size(self, size: ClipSize, at: str) -> None:
        prefix = f"{at}." if at else ""
        factor, temporal = self.latents.spatial_factor, self.latents.temporal_factor
        for key in ("height", "width"):
            if getattr(size, key) % factor:
                raise SpecError(
                    f"{prefix}{key}",
                    f"{key} ({getattr(size, key)}) must be a multiple of the latent codec's spatial "
                    f"factor ({factor})",
                )
        if temporal > 1 and (size.frames - 1) % temporal:
            raise SpecError(
                f"{prefix}frames",
                f"frames ({size.frames}) must be 1 + a multiple of the codec's temporal factor ({temporal})",
            )


def size_key(index: int) -> str:
    """Where below `data` a size of `Data.sizes` is written; empty for the first, in data's own keys."""
    return f"buckets[{index - 1}]" if index else ""
