"""How a model's sample videos are made where an experiment does not say."""

from __future__ import annotations

from typing import NamedTuple

from vdsgen.spec.architecture import Vdt
from vdsgen.spec.geometry import TrainedModel
from vdsgen.spec.training import Sampling


class SolverSettings(NamedTuple):
    """What sampling cannot do without."""

    steps: int
    guidance_scale: float
    """Of classifier-free guidance; 1: none."""


BUNDLED = SolverSettings(steps=30, guidance_scale=1.0)


def solver_settings(sampling: Sampling, model: TrainedModel) -> SolverSettings:
    """The experiment's, and where it has none the recipe's own, or those of the bundled family."""
    own: SolverSettings = BUNDLED
    if not isinstance(model, Vdt):
        figures = model.recipe.sampling
        own = SolverSettings(figures.steps, figures.guidance_scale)
    return SolverSettings(
        own.steps if sampling.steps is None else sampling.steps,
        own.guidance_scale if sampling.guidance_scale is None else sampling.guidance_scale,
    )
