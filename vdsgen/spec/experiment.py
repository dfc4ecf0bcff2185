"""The experiment: what to train, on which clips, and how."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal, Self

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
    SpecWithOptions,
)
from vdsgen.spec.diffusers_model import DiffusersModel, DiffusersSource
from vdsgen.spec.monitoring import Alarms, Monitoring
from vdsgen.spec.recipes.changes import RecipeChanges

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


class AdamW(SpecWithOptions):
    """Decoupled weight decay Adam (arXiv 1711.05101)."""

    written_where_set: ClassVar[frozenset[str]] = frozenset({"state_dtype"})

    type: Literal["adamw"] = "adamw"
    learning_rate: PositiveFloat = 1e-4
    beta1: Fraction = 0.9
    beta2: Fraction = 0.95
    epsilon: PositiveFloat = 1e-8
    weight_decay: NonNegativeFloat = 0.01
    state_dtype: Literal["fp32", "int8"] = "fp32"
    """What the two moments are kept in; int8: block-wise (arXiv 2110.02861), two bytes a parameter for eight.
    Not with an offloaded optimizer."""


class Schedule(SpecWithOptions):
    """The learning rate over steps: a warm-up, then constant, linear or cosine decay."""

    written_where_set: ClassVar[frozenset[str]] = frozenset({"final_fraction"})

    type: Literal["constant", "linear", "cosine"] = "constant"
    warmup_steps: NonNegativeInt = 0
    final_fraction: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Of the rate, what linear and cosine decay end at."""

    @model_validator(mode="after")
    def _constant_rates_do_not_end(self) -> Self:
        if self.type == "constant" and self.final_fraction:
            raise SpecError(
                "final_fraction", "means nothing for a constant rate", remedy="use type linear or cosine"
            )
        return self


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


class Diffusion(SpecWithOptions):
    """The training objective of models of the bundled family; `recipe` for models of diffusers."""

    written_where_set: ClassVar[frozenset[str]] = frozenset({"recipe"})

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
    recipe: RecipeChanges | None = None
    """Models of diffusers: what differs from the family's own recipe (docs/recipes.md); then the keys above
    stay as they are."""


class Saving(Spec):
    """Checkpoints of a run."""

    every_steps: PositiveInt = 500
    keep: PositiveInt = 3


class Sampling(SpecWithOptions):
    """The sample video at the end of a run, and on the way."""

    written_where_set: ClassVar[frozenset[str]] = frozenset({"every_steps"})

    steps: PositiveInt = 30
    guidance_scale: NonNegativeFloat = 1.0
    clips: PositiveInt = 2
    frame_rate: PositiveFloat = 8.0
    every_steps: PositiveInt | None = None
    """Also every so many steps; None: at the end only."""


class Lora(Spec):
    """Low-rank adapters (arXiv 2106.09685) on linear layers whose weights stay as they are."""

    rank: PositiveInt = 16
    alpha: PositiveFloat | None = None
    """Adapters' outputs are scaled by alpha / rank; None: by 1."""
    targets: tuple[Name, ...] = ("to_q", "to_k", "to_v", "to_out.0")
    """Which linear layers, by the ends of their names in the model."""


class Ema(Spec):
    """An exponential moving average of the weights, which samples better than they do; held-out losses and
    sample videos are then the average's too. Four bytes a trained parameter, spread over ranks as the
    optimizer's states are."""

    decay: Annotated[float, Field(gt=0, lt=1)] = 0.9999
    """Of the average, what a step keeps."""
    warmup: bool = True
    """Keep less in the first steps: at most (1 + step) / (10 + step)."""
    device: Literal["accelerator", "cpu"] = "accelerator"
    """Beside the optimizer's states, or in host memory."""
    every_steps: PositiveInt = 1
    """Average only so often: what a step keeps stays the same."""


class Validation(Spec):
    """The loss on clips held out of training, at fixed noise levels and with fixed noise: a model that learns
    has less of it, whatever clips and noise levels its own steps happened to see."""

    every_steps: PositiveInt = 500
    """Also before the first step and after the last."""
    videos: PathText | None = None
    """Folder with the held-out clips, as `data.videos`; or give `fraction`."""
    fraction: Annotated[float, Field(gt=0, lt=1)] | None = None
    """Share of the clips of `data.videos` that are held out of training: those whose path has a low hash, at
    least one. Which ones stays the same when others are added."""
    clips: PositiveInt = 8
    """Held-out clips that are looked at, at most: each takes a forward pass at every noise level."""
    quantiles: tuple[Annotated[float, Field(gt=0, lt=1)], ...] = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
    """Noise levels, as quantiles of those that training draws."""

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        if (self.videos is None) == (self.fraction is None):
            given = "both are" if self.videos is not None else "neither is"
            raise SpecError(
                "fraction",
                f"give either videos (a folder) or fraction (of the clips), {given} given",
                remedy="fraction: 0.1 holds a tenth of data.videos out of training",
            )
        return self

    @model_validator(mode="after")
    def _quantiles_rise(self) -> Self:
        if not self.quantiles or list(self.quantiles) != sorted(set(self.quantiles)):
            raise SpecError("quantiles", f"must be one or more rising numbers, are {list(self.quantiles)}")
        return self


class Training(SpecWithOptions):
    """How to train."""

    written_where_set: ClassVar[frozenset[str]] = frozenset(
        {"validation", "ema", "monitoring", "alarms", "lora", "start_from"}
    )

    global_batch_size: PositiveInt
    """Clips that one optimizer step sees, over all GPUs."""
    steps: PositiveInt
    seed: NonNegativeInt = 0
    method: Literal["full", "lora"] = "full"
    """full: every weight; lora: adapters on a model of diffusers, whose weights stay as they are."""
    lora: Lora = Lora()
    """method: lora only."""
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
    monitoring: Monitoring = Monitoring()
    alarms: Alarms = Alarms()
    validation: Validation | None = None
    """None: no clips are held out."""
    ema: Ema | None = None
    """None: weights are not averaged."""
    start_from: PathText | None = None
    """Local folder with the weights to begin with, as `vdsgen export` writes it (or diffusers, for a model of
    diffusers). None: random ones, or those that the model names."""

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
    model: CatalogName | Vdt | PresetModel | DiffusersSource | DiffusersModel
    """A catalogue name, or a diffusers folder or config.json; a catalogue name with changes (`preset:`,
    `diffusers:`); or all sizes (`family: vdt`, `family: diffusers`)."""
    data: Data
    training: Training
    constraints: Constraints = Constraints()
    objective: Objective = "throughput"
    """What the best plan is best at: samples a second; GPU-seconds a sample (money, where pools say what
    a GPU costs); the fewest GPUs that anything fits; or the most memory left free on the fullest GPU."""


TrainedModel = Vdt | DiffusersModel
"""What an experiment's model is once it is resolved."""


def geometries_of(data: Data, model: TrainedModel) -> tuple[Geometry, ...]:
    """`geometry_of` for every size of the clips, in the order of `Data.sizes`."""
    return tuple(geometry_of(data, model, size) for size in data.sizes)


def geometry_of(data: Data, model: TrainedModel, size: ClipSize | None = None) -> Geometry:
    """Tokens in time and space, and text tokens, of one sample of frames x height x width by default.

    Raises ValueError where patches do not divide the latent frame. Patches in time that latent frames do not
    fill are filled up.
    """
    size = size or data.sizes[0]
    _, spatial, temporal = latent_shape(data, model)
    patch = spatial_patch(model)
    frames = size.frames if temporal == 1 else 1 + (size.frames - 1) // temporal
    height, width = size.height // spatial, size.width // spatial
    if height % patch or width % patch:
        raise ValueError(f"patch_size ({patch}) must divide the latent frame ({height} x {width})")
    return Geometry(
        frames=frames if isinstance(model, Vdt) else -(-frames // model.temporal_patch),
        patches=(height // patch) * (width // patch),
        text_tokens=_text_tokens(data, model),
        latent_height=height,
        latent_width=width,
    )


def latent_shape(data: Data, model: TrainedModel) -> tuple[int, int, int]:
    """Channels of a latent frame, its spatial factor, and the temporal one: of the pipeline's autoencoder
    where there is one, else of `data.latents`."""
    codec = model.recipe.autoencoder if isinstance(model, DiffusersModel) and data.pipeline else data.latents
    return codec.channels, codec.spatial_factor, codec.temporal_factor


def spatial_patch(model: TrainedModel) -> int:
    """Edge of what becomes one token, in latent pixels."""
    return model.patch_size if isinstance(model, Vdt) else model.spatial_patch


def _text_tokens(data: Data, model: TrainedModel) -> int:
    if isinstance(model, DiffusersModel):
        return model.text_tokens
    encoder = data.text_encoder
    return encoder.max_tokens if model.condition == "text" and encoder else 0
