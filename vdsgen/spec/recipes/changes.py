"""What an experiment changes of a family's recipe."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Literal, Self

from pydantic import Field, model_validator

from vdsgen.spec.base import Fraction, PositiveFloat, Spec, SpecError
from vdsgen.spec.recipes.recipe import Edm, FixedShift, MicroConditions, Recipe, RootShift, TimestepKind


class RecipeChanges(Spec):
    """Models of diffusers only: what is to differ from the family's own recipe (docs/recipes.md). Keys that
    are left out are the family's."""

    timestep_sampling: TimestepKind | None = None
    """How the share of noise is drawn."""
    logit_mean: float | None = None
    """Of the logarithm of noise over clip; logit_normal only."""
    logit_std: PositiveFloat | None = None
    mode_scale: float | None = Field(default=None, ge=-1, le=1.75)
    """mode only (arXiv 2403.03206, section 3.1)."""
    timestep_range: tuple[Fraction, Fraction] | None = None
    """Shares of noise that are trained, after the shift: [0.9, 1.0] for an expert of high noise."""
    shift: PositiveFloat | Literal["resolution"] | None = None
    """Time shift of rectified flow in training; `resolution`: sqrt(tokens / 256)."""
    sampling_shift: PositiveFloat | Literal["resolution"] | None = None
    """The same for sample videos."""
    condition_dropout: Fraction | None = None
    """Share of samples trained without their caption or image."""
    first_frame_share: Fraction | None = None
    """Wan 2.2 5B and LTX-Video: share of samples trained from a given first frame; above 0, sample videos are
    made from one."""
    guidance: PositiveFloat | None = None
    """What a guidance-distilled model is told in training."""
    frame_rate: PositiveFloat | None = None
    """Frames a second that SVD is told. None: data.frame_rate, the recipe's own where that is unset."""
    motion_bucket_id: int | None = Field(default=None, ge=0, le=255)
    """SVD only."""

    @model_validator(mode="after")
    def _range_is_one(self) -> Self:
        if self.timestep_range is not None and self.timestep_range[0] >= self.timestep_range[1]:
            raise SpecError("timestep_range", f"must go up, is {list(self.timestep_range)}")
        return self


def changed(recipe: Recipe, changes: RecipeChanges | None) -> Recipe:
    """The recipe with an experiment's changes.

    Raises SpecError, with a key below the changes, for one that means nothing to the family.
    """
    if changes is None:
        return recipe
    _check_meaning(recipe, changes)
    low, high = changes.timestep_range or (recipe.timesteps.low, recipe.timesteps.high)
    timesteps = replace(
        recipe.timesteps,
        **_given(
            kind=changes.timestep_sampling,
            mean=changes.logit_mean,
            std=changes.logit_std,
            mode_scale=changes.mode_scale,
        ),
        low=low,
        high=high,
    )
    sampling = recipe.sampling
    if changes.sampling_shift is not None:
        sampling = replace(sampling, shift=_shift(changes.sampling_shift))
    micro = recipe.micro_conditions
    if micro is not None:
        told = _given(frame_rate=changes.frame_rate, motion_bucket_id=changes.motion_bucket_id)
        micro = MicroConditions(
            frame_rate=told.get("frame_rate", micro.frame_rate),
            motion_bucket_id=told.get("motion_bucket_id", micro.motion_bucket_id),
        )
    return replace(
        recipe,
        timesteps=timesteps,
        shift=recipe.shift if changes.shift is None else _shift(changes.shift),
        sampling=sampling,
        micro_conditions=micro,
        **_given(
            condition_dropout=changes.condition_dropout,
            guidance=changes.guidance,
            first_frame_share=changes.first_frame_share,
        ),
    )


def _check_meaning(recipe: Recipe, changes: RecipeChanges) -> None:
    if changes.guidance is not None and recipe.guidance is None:
        raise SpecError("guidance", f"{recipe.summary} is told no guidance", remedy="leave it out")
    if changes.first_frame_share is not None and recipe.first_frame_share is None:
        raise SpecError(
            "first_frame_share",
            f"{recipe.summary} takes one timestep for all frames: none can be given",
            remedy="leave it out",
        )
    for key in ("frame_rate", "motion_bucket_id"):
        if getattr(changes, key) is not None and recipe.micro_conditions is None:
            raise SpecError(key, f"{recipe.summary} is not told {key}", remedy="leave it out")
    if changes.timestep_sampling in ("uniform", "mode") and isinstance(recipe.objective, Edm):
        raise SpecError(
            "timestep_sampling",
            f"{recipe.summary} is trained at sigma without upper end: {changes.timestep_sampling} says "
            f"nothing",
            remedy="set logit_mean and logit_std, which are of log sigma",
        )


def _shift(value: float | Literal["resolution"]) -> FixedShift | RootShift:
    return RootShift() if value == "resolution" else FixedShift(value)


def _given(**values: Any) -> dict[str, Any]:
    return {key: value for key, value in values.items() if value is not None}
