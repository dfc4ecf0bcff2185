"""How to train: steps, method, precision, objective, and what is saved and shown on the way."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal, Self

from pydantic import Field, model_validator

from vdsgen.spec.base import (
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
from vdsgen.spec.dtypes import CommunicationPrecision, Dtype
from vdsgen.spec.linear_precision import LinearPrecision
from vdsgen.spec.monitoring import Alarms, Monitoring
from vdsgen.spec.optimization import AdamW, LossScaling, Schedule
from vdsgen.spec.recipes.changes import RecipeChanges


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


class Saving(SpecWithOptions):
    """Checkpoints of a run."""

    written_where_set: ClassVar[frozenset[str]] = frozenset({"keep_hours", "asynchronous"})

    every_steps: PositiveInt | Literal["auto"] = 500
    """auto: so often that saving and what a failure loses cost least, from the pool's `failures` and the rate
    at which it writes checkpoints; `vdsgen generate` writes the number."""
    keep: PositiveInt = 3
    """The last so many stay."""
    keep_hours: PositiveFloat | None = None
    """Those written in so many hours before the newest stay besides."""
    asynchronous: bool = False
    """Training waits while what is saved is copied to host memory, not while it is written. The copy stays
    there (docs/saving.md)."""

    @property
    def interval_steps(self) -> int:
        """`every_steps` as a number. Of a rendered directory's: `auto` is resolved by planning."""
        if self.every_steps == "auto":
            raise SpecError("every_steps", "is auto where a number of steps is needed")
        return self.every_steps


class Sampling(SpecWithOptions):
    """The sample video at the end of a run, and on the way."""

    written_where_set: ClassVar[frozenset[str]] = frozenset({"every_steps"})

    steps: PositiveInt | None = None
    """None: as many as the model's recipe takes (docs/recipes.md), 30 for the bundled family."""
    guidance_scale: NonNegativeFloat | None = None
    """Of classifier-free guidance, 1 for none. None: the recipe's own, 1 for the bundled family."""
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
        {"validation", "ema", "monitoring", "alarms", "lora", "start_from", "linear_precision"}
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
    """What may travel between data-parallel ranks. exact: gradients and parameters in the model's dtype, as
    the engine sends them by itself. reduced: gradients of an fp32 model in bf16 besides. quantized: int8
    gradients, and ZeRO++'s int8 parameters and int4 gradients, besides. The planner takes what is faster."""
    activation_precision: Literal["exact", "int8", "fp8"] = "exact"
    """What checkpointed activations may wait for backward in: as they are; or, where that makes a plan
    faster, packed into a byte an element, which changes gradients (docs/activations.md)."""
    linear_precision: LinearPrecision = "exact"
    """What linear layers of the model's blocks multiply in. exact: the model's dtype. fp8, int8: 8 bits with
    a scale for every row, forward and backward, weights kept as they are: faster on large layers where the
    GPU has the format, and never exact; emulated elsewhere (docs/low_precision.md)."""
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
