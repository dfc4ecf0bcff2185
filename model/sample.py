"""Sample videos: from noise to clips through the engine as it trains, whatever its layout.

Every rank takes part in every prediction: a pipeline's stages each run their layers, ZeRO-3 gathers its
parameters. Data ranks do the same work side by side. Rank 0 decodes and writes.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import torch
from torch import Tensor

from vdsgen.files import write_atomically
from vdsgen.model.configuration import Configuration
from vdsgen.model.consistency import consistency
from vdsgen.model.console import is_first_rank
from vdsgen.model.data.encode import write_video
from vdsgen.model.engine import TrainingEngine
from vdsgen.model.objective import denoised, sampling_times
from vdsgen.model.recipes.clips import noise_for, recipe_clips
from vdsgen.model.sources import AnyRecipeSource, AnySource, BundledSource
from vdsgen.spec.architecture import Geometry, Vdt
from vdsgen.spec.sampling import SolverSettings, solver_settings
from vdsgen.spec.training import Diffusion

SHEET_FRAMES = 8
"""Most frames a clip that the contact sheet shows, evenly spread."""

Predict = Callable[[tuple[Tensor, ...]], Tensor]
"""(noised, timestep[, condition]) -> prediction (B, C, T, H, W) float32; collective."""


@dataclass(frozen=True, slots=True)
class Conditions:
    """What each clip is to show, and what stands for nothing; one row a clip. Both None: stages that do not
    see them, which take part in as many predictions."""

    wanted: Tensor | None = None
    """int64 (B,) classes, or float32 (B, L, D_text) text embeddings."""
    none: Tensor | None = None
    """The same shape."""


def sample_latents(
    predict: Predict,
    noise: Tensor,
    conditions: Conditions | None,
    diffusion: Diffusion,
    solver: SolverSettings,
    geometry: Geometry,
) -> Tensor:
    """Latents (B, C, T, H, W) float32 from `noise` of that shape: Euler's method for rectified flow, DDIM for
    epsilon and v (vdsgen.model.objective.denoised), with classifier-free guidance (arXiv 2207.12598)."""
    times = sampling_times(solver.steps, diffusion, geometry).to(noise.device)
    x = noise
    for now, later in pairwise(times):
        timestep = now.expand(len(x)).contiguous()
        prediction = guided(predict, x, timestep, conditions, solver.guidance_scale)
        x = denoised(prediction, x, now, later, diffusion)
    return x


def guided(
    predict: Predict, noised: Tensor, timestep: Tensor, conditions: Conditions | None, scale: float
) -> Tensor:
    """none + scale * (wanted - none); a scale of 1 or 0 needs one prediction only. How many are made is the
    same on every rank: `conditions` is None only where the model takes none."""

    def under(condition: Tensor | None) -> Tensor:
        return predict((noised, timestep) if condition is None else (noised, timestep, condition))

    if conditions is None:
        return under(None)
    if scale == 1:
        return under(conditions.wanted)
    nothing = under(conditions.none)
    if scale == 0:
        return nothing
    wanted = under(conditions.wanted)
    return nothing + scale * (wanted - nothing)


@dataclass(frozen=True, slots=True)
class SampleFiles:
    """What `write_sample` has written."""

    video: Path
    contact_sheet: Path
    consistency: Path
    """How steadily the clips' frames follow each other (vdsgen.model.consistency), as JSON."""


def sample_files(run: Path, step: int) -> SampleFiles:
    """Where those of `step` are; `consistency` is written last."""
    name = run / "samples" / f"step-{step:08d}"
    return SampleFiles(name.with_suffix(".mp4"), name.with_suffix(".png"), name.with_suffix(".json"))


def write_sample(
    configuration: Configuration, engine: TrainingEngine, source: AnySource | None, step: int
) -> SampleFiles:
    """Samples clips with the conditions of the first training clips, and writes RUN/samples/step-N.mp4 (the
    clips side by side) and .png (their frames). Collective; `source` may be None where no clips are read.
    Leaves weights, optimizer and the order of data as they are."""
    sampling = configuration.rendered.experiment.training.sampling
    # A micro-batch at a time: no more memory than training takes.
    parts = [
        range(first, min(first + configuration.micro_batch_size, sampling.clips))
        for first in range(0, sampling.clips, configuration.micro_batch_size)
    ]
    if isinstance(configuration.model, Vdt):
        assert source is None or isinstance(source, BundledSource)
        clips = _bundled_clips(configuration, engine, source, parts)
    else:
        assert source is None or isinstance(source, AnyRecipeSource)
        clips = recipe_clips(configuration, engine, source, parts)
    files = sample_files(configuration.output, step)
    if is_first_rank():
        assert source is not None, "rank 0 is in the first stage, which reads clips"
        pixels = [to_pixels(source.decode(latents)) for latents in torch.cat(clips)]
        files.video.parent.mkdir(exist_ok=True)
        write_video(files.video, side_by_side(pixels).numpy(), sampling.frame_rate)
        write_contact_sheet(pixels, files.contact_sheet)
        measures = consistency(pixels)
        found = {} if measures is None else measures.values()
        figures = {"step": step, "dtype": configuration.rendered.layout.dtype, **found}
        write_atomically(files.consistency, (json.dumps(figures, indent=2) + "\n").encode())
    return files


def _bundled_clips(
    configuration: Configuration, engine: TrainingEngine, source: BundledSource | None, parts: Sequence[range]
) -> list[Tensor]:
    """Latents (B, C, T, H, W) of each part of the clips."""
    training, model = configuration.rendered.experiment.training, configuration.model
    assert isinstance(model, Vdt)
    noise = noise_for(model.in_channels, configuration.geometry, training.sampling.clips, training.seed)
    return [
        sample_latents(
            engine.predict,
            noise[part.start : part.stop].to(engine.device),
            None if model.condition == "none" else _conditions(source, part),
            training.diffusion,
            solver_settings(training.sampling, model),
            configuration.geometry,
        )
        for part in parts
    ]


def _conditions(source: BundledSource | None, clips: range) -> Conditions:
    """Those of training clips `clips` (again from the first where there are fewer)."""
    if source is None:
        return Conditions()
    count = len(source.reader.index.entries)
    wanted = [source.conditions.of(clip % count) for clip in clips]
    nothing = [source.conditions.of(clip % count, dropped=True) for clip in clips]
    rows = [tensor for tensor in wanted if tensor is not None]
    return Conditions(torch.stack(rows), torch.stack([tensor for tensor in nothing if tensor is not None]))


def to_pixels(video: Tensor) -> Tensor:
    """(3, T, H, W) in about [-1, 1] -> uint8 (T, H, W, 3)."""
    scaled = ((video.float().cpu().clamp(-1, 1) + 1) * 127.5).round()
    return scaled.to(torch.uint8).permute(1, 2, 3, 0).contiguous()


def side_by_side(clips: list[Tensor]) -> Tensor:
    """uint8 (T, H, W, 3) each -> one of (T, rows * H, columns * W, 3), about square, spare places black."""
    columns = math.ceil(math.sqrt(len(clips)))
    spare = [torch.zeros_like(clips[0])] * (-len(clips) % columns)
    places = [*clips, *spare]
    rows = [torch.cat(places[first : first + columns], dim=2) for first in range(0, len(places), columns)]
    return torch.cat(rows, dim=1)


def write_contact_sheet(clips: list[Tensor], path: Path) -> None:
    """A PNG with a row a clip: up to SHEET_FRAMES of its frames, first and last included."""
    from matplotlib import image

    frames = len(clips[0])
    shown = torch.linspace(0, frames - 1, min(frames, SHEET_FRAMES)).round().long()
    rows = [torch.cat(list(clip[shown]), dim=1) for clip in clips]
    image.imsave(str(path), torch.cat(rows, dim=0).numpy())
