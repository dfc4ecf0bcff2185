"""What an optimizer step does: AdamW, its learning rate over steps, and fp16 loss scaling."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal, Self

from pydantic import Field, model_validator

from vdsgen.spec.base import (
    Fraction,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    Spec,
    SpecError,
    SpecWithOptions,
)


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
    """The learning rate over steps: a warm-up, then constant, linear, cosine or inverse-square-root decay; or
    one cycle, up and down."""

    written_where_set: ClassVar[frozenset[str]] = frozenset({"final_fraction", "decay_from_step"})

    type: Literal["constant", "linear", "cosine", "inverse_sqrt", "one_cycle"] = "constant"
    warmup_steps: NonNegativeInt = 0
    """one_cycle: the steps up, 0 for half of all; the rest go down."""
    final_fraction: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Of the rate, what linear and cosine decay end at, and what one cycle starts from and ends at."""
    decay_from_step: PositiveInt | None = None
    """inverse_sqrt: from here on, step k has sqrt(decay_from_step / k) of the rate (arXiv 2312.02696). None:
    from the end of the warm-up (arXiv 1706.03762, equation 3)."""

    @model_validator(mode="after")
    def _rates_without_an_end_have_none(self) -> Self:
        if self.type in ("constant", "inverse_sqrt") and self.final_fraction:
            raise SpecError(
                "final_fraction",
                f"means nothing for {_WORDS[self.type]}",
                remedy="use type linear, cosine or one_cycle",
            )
        return self

    @model_validator(mode="after")
    def _decay_has_a_beginning(self) -> Self:
        if self.type != "inverse_sqrt":
            if self.decay_from_step is not None:
                raise SpecError("decay_from_step", f"means nothing for type {self.type}")
            return self
        if self.decay_from_step is None and not self.warmup_steps:
            raise SpecError(
                "decay_from_step",
                "inverse_sqrt needs a step that its decay begins at",
                remedy="give warmup_steps, decay_from_step, or both",
            )
        if self.decay_from_step is not None and self.decay_from_step < self.warmup_steps:
            raise SpecError(
                "decay_from_step",
                f"decay_from_step ({self.decay_from_step}) is before the end of the warm-up "
                f"({self.warmup_steps} steps)",
            )
        return self

    @property
    def is_the_trainers(self) -> bool:
        """Whether DeepSpeed has no such schedule, and the training entrypoint brings its own."""
        return self.type == "inverse_sqrt"


_WORDS = {"constant": "a constant rate", "inverse_sqrt": "a rate that falls without end"}


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
