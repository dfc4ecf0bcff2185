"""Sample clips of a diffusers model, through the engine as it trains."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from vdsgen.model.data.order import generator_for
from vdsgen.model.recipes.draw import added_frames
from vdsgen.model.recipes.sample import SamplingConditions, sample_latents, sampling_conditions
from vdsgen.spec.architecture import Geometry
from vdsgen.spec.diffusers_model import DiffusersModel
from vdsgen.spec.geometry import latent_shape
from vdsgen.spec.recipes import trained_recipe
from vdsgen.spec.sampling import solver_settings

if TYPE_CHECKING:
    from vdsgen.model.configuration import Configuration
    from vdsgen.model.engine import TrainingEngine
    from vdsgen.model.sources import AnyRecipeSource


def noise_for(channels: int, geometry: Geometry, clips: int, seed: int) -> Tensor:
    """(clips, C, T, H, W) float32, the same on every rank and every machine."""
    shape = (channels, geometry.frames, geometry.latent_height, geometry.latent_width)
    return torch.stack(
        [torch.randn(shape, generator=generator_for(seed, "sample video", clip)) for clip in range(clips)]
    )


def recipe_clips(
    configuration: Configuration,
    engine: TrainingEngine,
    source: AnyRecipeSource | None,
    parts: Sequence[range],
) -> list[Tensor]:
    """Latents (B, C, T, H, W) of each part of the clips, conditioned as the run's first samples. Collective;
    `source` is None where no clips are read."""
    model, experiment = configuration.model, configuration.rendered.experiment
    assert isinstance(model, DiffusersModel)
    recipe = trained_recipe(model, experiment)
    sampling, geometry = experiment.training.sampling, configuration.geometry
    solver = solver_settings(sampling, model)
    whole = geometry._replace(frames=geometry.frames * model.temporal_patch)
    noise = noise_for(recipe.autoencoder.channels, whole, sampling.clips, experiment.training.seed)
    temporal = latent_shape(experiment.data, model)[2]
    frames = experiment.data.frames if temporal == 1 else 1 + (experiment.data.frames - 1) // temporal
    return [
        sample_latents(
            recipe,
            engine.predict,
            noise[part.start : part.stop].to(engine.device),
            _conditions(source, part),
            steps=solver.steps,
            guidance_scale=solver.guidance_scale,
        )[:, :, added_frames(frames, recipe) :]
        for part in parts
    ]


def _conditions(source: AnyRecipeSource | None, clips: range) -> SamplingConditions | None:
    """Those of the run's first samples."""
    if source is None:
        return None
    shown = [source.shown(sample) for sample in clips]
    return sampling_conditions(source.recipe, shown, empty=source.text(""))
