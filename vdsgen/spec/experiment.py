"""The experiment: what to train, on which clips, and how."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from vdsgen.spec.architecture import Geometry, PresetModel, Vdt
from vdsgen.spec.base import (
    CatalogName,
    Fraction,
    Name,
    NonNegativeFloat,
    NonNegativeInt,
    PathText,
    PositiveFloat,
    PositiveInt,
    Spec,
    SpecError,
)

Dtype = Literal["fp32", "bf16", "fp16"]
Objective = Literal["throughput", "cost", "fewest_gpus", "memory_headroom"]
CommunicationPrecision = Literal["exact", "reduced", "quantized"]


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


class Data(Spec):
    """The clips, and what the loader makes of them."""

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
    frame_rate: PositiveFloat | None = None
    """Frames a second that clips are sampled at; None: the video's own."""
    latents: Annotated[SpaceToDepth | Autoencoder, Field(discriminator="codec")] = SpaceToDepth()
    text_encoder: TextEncoder | None = None
    """None: a caption is hashed to a class (condition: class), or not used."""
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


class AdamW(Spec):
    """Decoupled weight decay Adam (arXiv 1711.05101)."""

    type: Literal["adamw"] = "adamw"
    learning_rate: PositiveFloat = 1e-4
    beta1: Fraction = 0.9
    beta2: Fraction = 0.95
    epsilon: PositiveFloat = 1e-8
    weight_decay: NonNegativeFloat = 0.01


class Schedule(Spec):
    """The learning rate over steps: a warm-up, then constant, linear or cosine decay."""

    type: Literal["constant", "linear", "cosine"] = "constant"
    warmup_steps: NonNegativeInt = 0


class LossScaling(Spec):
    """Dynamic loss scaling for fp16; conservative for video (the article's figures)."""

    initial_loss_scale: PositiveInt = 512
    """A power of two."""
    loss_scale_window: PositiveInt = 2000
    minimum_loss_scale: PositiveInt = 1
    hysteresis: PositiveInt = 2

    @model_validator(mode="after")
    def _powers_of_two(self) -> Self:
        if self.initial_loss_scale & (self.initial_loss_scale - 1):
            raise SpecError("initial_loss_scale", f"must be a power of two, is {self.initial_loss_scale}")
        return self


class Diffusion(Spec):
    """The training objective."""

    prediction: Literal["flow", "epsilon", "v"] = "flow"
    timestep_sampling: Literal["uniform", "logit_normal"] = "logit_normal"
    logit_mean: float = 0.0
    logit_std: PositiveFloat = 1.0
    shift: PositiveFloat | Literal["resolution"] = 1.0
    """Time shift of rectified flow (arXiv 2403.03206, section 5.3.2); `resolution` derives it from tokens."""
    noise_schedule: Literal["cosine", "linear"] = "cosine"
    """epsilon and v only."""
    condition_dropout: Fraction = 0.1
    """Share of samples trained without their condition, for guidance."""


class Saving(Spec):
    """Checkpoints of a run."""

    every_steps: PositiveInt = 500
    keep: PositiveInt = 3


class Sampling(Spec):
    """The sample video at the end of a run."""

    steps: PositiveInt = 30
    guidance_scale: NonNegativeFloat = 1.0
    clips: PositiveInt = 2
    frame_rate: PositiveFloat = 8.0


class Training(Spec):
    """How to train."""

    global_batch_size: PositiveInt
    """Clips that one optimizer step sees, over all GPUs."""
    steps: PositiveInt
    seed: NonNegativeInt = 0
    method: Literal["full"] = "full"
    precision: Literal["auto"] | Dtype = "auto"
    """auto: bf16 where the GPU has it, else fp16; fp32 where that is faster or no half precision exists."""
    gradient_accumulation_dtype: Literal["auto", "fp32", "model"] = "auto"
    """auto: fp32 for bf16 where DeepSpeed allows it, else the model's."""
    communication_precision: CommunicationPrecision = "exact"
    activation_precision: Literal["exact", "int8", "fp8"] = "exact"
    """What checkpointed activations may wait for backward in: as they are; or, where that makes a plan
    faster, packed into a byte an element, which changes gradients (docs/activations.md)."""
    """What may travel between data-parallel ranks. exact: gradients and parameters in the model's dtype, as
    the engine sends them by itself. reduced: gradients of an fp32 model in bf16 besides. quantized: int8
    gradients, and ZeRO++'s int8 parameters and int4 gradients, besides. The planner takes what is faster."""
    loss_scaling: LossScaling = LossScaling()
    gradient_clipping: NonNegativeFloat = 1.0
    """Largest global gradient norm; 0 for none."""
    optimizer: AdamW = AdamW()
    schedule: Schedule = Schedule()
    diffusion: Diffusion = Diffusion()
    saving: Saving = Saving()
    sampling: Sampling = Sampling()

    @model_validator(mode="after")
    def _schedule_fits(self) -> Self:
        if self.schedule.warmup_steps > self.steps:
            raise SpecError(
                "schedule.warmup_steps",
                f"schedule.warmup_steps ({self.schedule.warmup_steps}) is more than steps ({self.steps})",
            )
        return self


class Constraints(Spec):
    """Pins: what is set here is not searched."""

    pipeline_parallel_size: PositiveInt | None = None
    data_parallel_size: PositiveInt | None = None
    zero_stage: Annotated[int, Field(ge=0, le=3)] | None = None
    micro_batch_size: PositiveInt | None = None
    gradient_accumulation_steps: PositiveInt | None = None
    activation_checkpoint_interval: NonNegativeInt | None = None
    """Blocks a checkpoint segment, on all stages, whose layers are all recomputed whole; 0 for no
    checkpointing."""
    recompute: Literal["full", "selective"] | None = None
    """Of layers that are recomputed: everything, or everything but matrix products and attention, whose
    outputs are kept."""
    tensor_parallel_size: PositiveInt | None = None
    sequence_parallel_size: PositiveInt | None = None
    """Ranks that share each clip: divides its latent frames and its rows of patches."""
    offload_optimizer: Literal["none", "cpu", "nvme"] | None = None
    offload_parameters: Literal["none", "cpu", "nvme"] | None = None
    offload_activations: bool | None = None
    activation_compression: Literal["none", "int8", "fp8"] | None = None
    """Of checkpointed activations, whatever `activation_precision` says."""
    communication_dtype: Dtype | None = None
    """What gradients are reduced in, whatever `communication_precision` says."""
    gradient_compression: Literal["none", "int8"] | None = None
    """Of the trainer's own, whatever `communication_precision` says; ZeRO-0 and ZeRO-1."""
    zero_quantized_weights: bool | None = None
    """ZeRO++ at ZeRO-3: parameters are gathered in int8."""
    zero_quantized_gradients: bool | None = None
    """ZeRO++ at ZeRO-3: fp16 gradients are reduced in int4, between nodes."""
    hierarchical_partition_size: PositiveInt | None = None
    """ZeRO++ at ZeRO-3: ranks that hold a second copy of the parameters together; 1 for none."""


class Experiment(Spec):
    """`experiment.yaml`"""

    name: Name
    model: CatalogName | Vdt | PresetModel
    """A catalogue name, a catalogue name with changes (`preset:`), or the family's sizes (`family: vdt`)."""
    data: Data
    training: Training
    constraints: Constraints = Constraints()
    objective: Objective = "throughput"
    """What the best plan is best at: samples a second; GPU-seconds a sample (money, where pools say what
    a GPU costs); the fewest GPUs that anything fits; or the most memory left free on the fullest GPU."""


def geometries_of(data: Data, model: Vdt) -> tuple[Geometry, ...]:
    """`geometry_of` for every size of the clips, in the order of `Data.sizes`."""
    return tuple(geometry_of(data, model, size) for size in data.sizes)


def geometry_of(data: Data, model: Vdt, size: ClipSize | None = None) -> Geometry:
    """Latent frames, patches a frame and text tokens of one sample, of frames x height x width by default.

    Raises ValueError where the patch size does not divide the latent frame.
    """
    size = size or data.sizes[0]
    factor = data.latents.temporal_factor
    height = size.height // data.latents.spatial_factor
    width = size.width // data.latents.spatial_factor
    if height % model.patch_size or width % model.patch_size:
        raise ValueError(f"patch_size ({model.patch_size}) must divide the latent frame ({height} x {width})")
    has_text = model.condition == "text"
    return Geometry(
        frames=size.frames if factor == 1 else 1 + (size.frames - 1) // factor,
        patches=(height // model.patch_size) * (width // model.patch_size),
        text_tokens=data.text_encoder.max_tokens if has_text and data.text_encoder else 0,
        latent_height=height,
        latent_width=width,
    )
