"""One rank: trains a small model under one rendered configuration after another, on the real engine.

Reads {"configs": [...], "steps": N} from standard input; prints what it saw, a list with one entry a config,
as its last line.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from deepspeed.accelerator import get_accelerator

from vdsgen.model.build import build_engine
from vdsgen.model.engine import TrainingEngine
from vdsgen.model.pipeline import Batch
from vdsgen.spec.architecture import Geometry, Vdt

MODEL = Vdt(
    in_channels=3,
    patch_size=2,
    hidden_size=32,
    depth=6,
    heads=2,
    mlp_hidden_size=64,
    condition="class",
    classes=4,
)
GEOMETRY = Geometry(frames=3, patches=6, text_tokens=0, latent_height=4, latent_width=6)
SHAPE = (MODEL.in_channels, GEOMETRY.frames, GEOMETRY.latent_height, GEOMETRY.latent_width)
GLOBAL_BATCH = 8


def batches(engine: TrainingEngine, config: Mapping[str, Any]) -> Iterator[Batch]:
    """This rank's micro-batches of one clip, in the order of the data: one global batch in every mode."""
    accumulation, ranks = config["gradient_accumulation_steps"], engine.data_parallel_size
    step = 0
    while True:
        for micro in range(accumulation):
            index = step * GLOBAL_BATCH + micro * ranks + engine.data_parallel_rank
            generator = torch.Generator().manual_seed(index)
            noised, target = torch.randn((2, 1, *SHAPE), generator=generator)
            timestep = torch.rand(1, generator=generator)
            yield (noised, timestep, torch.tensor([index % MODEL.classes])), target
        step += 1


def train(config: Mapping[str, Any], steps: int) -> dict[str, Any]:
    engine = build_engine(config, MODEL, GEOMETRY, seed=3)
    data = batches(engine, config)
    seen: dict[str, Any] = {"optimizer": type(engine.engine.optimizer).__name__, "steps": []}
    for _ in range(steps):
        rate, scale = engine.learning_rate, engine.loss_scale
        loss = engine.train_step(data)
        seen["steps"].append(
            {
                "loss": loss,
                "grad_norm": engine.global_grad_norm,
                "learning_rate": rate,
                "loss_scale": scale,
            }
        )
    return seen


def main() -> None:
    job = json.load(sys.stdin)
    torch.set_num_threads(1)
    # DeepSpeed allows fp16 only on processors that are fast at it; any can compute in it.
    get_accelerator().is_fp16_supported = lambda: True
    results = [train(config, job["steps"]) for config in job["configs"]]
    print(flush=True)
    print(json.dumps(results), flush=True)


if __name__ == "__main__":
    main()
