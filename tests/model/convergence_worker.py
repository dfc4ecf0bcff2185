"""One rank of a small training that is meant to succeed: two clips, learnt by heart through two stages.

Reads {"config": ..., "steps": ...} from standard input; prints, as its last line, the losses, and of samples
drawn before and after training the errors against both clips.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from typing import Any

import torch

from tests.clips import numbered
from vdsgen.model.build import build_engine
from vdsgen.model.engine import TrainingEngine
from vdsgen.model.latents import SpaceToDepthCodec
from vdsgen.model.objective import training_pair
from vdsgen.model.pipeline import Batch
from vdsgen.model.sample import Conditions, sample_latents
from vdsgen.spec.architecture import Geometry, Vdt
from vdsgen.spec.sampling import SolverSettings
from vdsgen.spec.training import Diffusion

FRAMES, SIZE, FACTOR = 2, 16, 4
MODEL = Vdt(
    in_channels=3 * FACTOR**2,
    patch_size=1,
    hidden_size=96,
    depth=2,
    heads=2,
    mlp_hidden_size=192,
    condition="class",
    classes=2,
    position="learned",
    max_frames=FRAMES,
    max_patches=(SIZE // FACTOR) ** 2,
)
GEOMETRY = Geometry(
    frames=FRAMES,
    patches=(SIZE // FACTOR) ** 2,
    text_tokens=0,
    latent_height=SIZE // FACTOR,
    latent_width=SIZE // FACTOR,
)
DIFFUSION = Diffusion()
BATCH = 8


def clips() -> torch.Tensor:
    """Latents (2, C, T, H, W) of two clips whose frames show other numbers as bars."""
    codec = SpaceToDepthCodec(FACTOR)
    made = []
    for first in (83, 172):
        pixels = torch.from_numpy(numbered(FRAMES, height=SIZE, width=SIZE, first=first))
        made.append(codec.encode(pixels.permute(3, 0, 1, 2) / 127.5 - 1))
    return torch.stack(made)


def batches(latents: torch.Tensor) -> Iterator[Batch]:
    generator = torch.Generator().manual_seed(3)
    classes = torch.arange(BATCH) % len(latents)
    while True:
        pairs = [training_pair(latents[c], generator, DIFFUSION, GEOMETRY) for c in classes.tolist()]
        inputs = torch.stack([p.noised for p in pairs]), torch.stack([p.timestep for p in pairs]), classes
        yield inputs, torch.stack([p.target for p in pairs])


def errors(engine: TrainingEngine, latents: torch.Tensor) -> list[list[float]]:
    """Mean square error of each class's sample (a row) against each clip."""
    noise = torch.randn(latents.shape, generator=torch.Generator().manual_seed(5))
    conditions = Conditions(torch.arange(len(latents)), torch.full((len(latents),), MODEL.classes))
    solver = SolverSettings(steps=20, guidance_scale=1.0)
    found = sample_latents(engine.predict, noise, conditions, DIFFUSION, solver, GEOMETRY)
    return [[float((one - clip).square().mean()) for clip in latents] for one in found]


def run(job: dict[str, Any]) -> dict[str, Any]:
    latents = clips()
    engine = build_engine(job["config"], MODEL, GEOMETRY, seed=0)
    before, data = errors(engine, latents), batches(latents)
    losses = [engine.train_step(data) for _ in range(job["steps"])]
    return {"losses": losses, "before": before, "after": errors(engine, latents)}


if __name__ == "__main__":
    answer = run(json.load(sys.stdin))
    print(flush=True)
    print(json.dumps(answer), flush=True)
