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
