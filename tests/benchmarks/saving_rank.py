"""One rank of tests/benchmarks/saving.py: trains, saves in both ways in turn, and times steps and saves."""

from __future__ import annotations

import itertools
import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from tests.model.checkpoint_worker import rendered_of
from vdsgen.model.background_writer import BackgroundCheckpointEngine
from vdsgen.model.build import build_engine
from vdsgen.model.pipeline import Batch
from vdsgen.model.saves import Saves, read_saves
from vdsgen.spec.architecture import Geometry, Vdt
from vdsgen.spec.training import Saving

GEOMETRY = Geometry(frames=2, patches=16, text_tokens=0, latent_height=4, latent_width=4)
ACCUMULATION = 2


def model(hidden: int, depth: int) -> Vdt:
    return Vdt(
        in_channels=4, patch_size=1, hidden_size=hidden, depth=depth, heads=8, mlp_hidden_size=4 * hidden,
        condition="none",
    )  # fmt: skip


def config(depth: int) -> dict[str, Any]:
    layers = depth + 2
    return {
        "train_batch_size": ACCUMULATION,
        "train_micro_batch_size_per_gpu": 1,
        "gradient_accumulation_steps": ACCUMULATION,
        "pipeline": {
            "stages": 2, "partition": [0, layers // 2, layers], "activation_checkpoint_interval": 0,
            "use_reentrant": False,
        },
        "zero_optimization": {"stage": 1},
        "bf16": {"enabled": True},
        "data_types": {"grad_accum_dtype": "fp32"},
        "optimizer": {"type": "AdamW", "params": {"lr": 1e-4, "torch_adam": True, "fused": True}},
        "gradient_clipping": 1.0,
    }  # fmt: skip


def endless_batches() -> Iterator[Batch]:
    latents = torch.randn(1, 4, GEOMETRY.frames, GEOMETRY.latent_height, GEOMETRY.latent_width)
    return itertools.repeat(((latents, torch.full((1,), 0.5)), latents))


def main() -> None:
    job = json.load(sys.stdin)
    torch.set_num_threads(1)
    folder, asked = Path(job["folder"]), config(job["depth"])
    engine = build_engine(asked, model(job["hidden"], job["depth"]), GEOMETRY, seed=1)
    rendered, data = rendered_of(asked), endless_batches()
    ways = {}
    own = engine.engine.checkpoint_engine
    for name in ("waiting", "beside"):
        saves = Saves(engine, folder / name, rendered, Saving(keep=1, asynchronous=name == "beside"), 0)
        ways[name] = (saves, engine.engine.checkpoint_engine if name == "beside" else own)
    steps: dict[str, list[float]] = {"undisturbed": [], "beside": []}

    def step(saves: Saves | None) -> bool:
        """Whether files were still written when it ended."""
        began = time.perf_counter()
        engine.train_step(data)
        seconds = time.perf_counter() - began
        if saves is None or not saves.is_writing:
            steps["undisturbed"].append(seconds)
            return False
        steps["beside"].append(seconds)
        saves.after_step()
        return saves.is_writing

    for _ in range(2):
        engine.train_step(data)
    for number in range(1, job["rounds"] + 1):
        for name in ("waiting", "beside"):
            saves, checkpoint_engine = ways[name]
            engine.engine.checkpoint_engine = checkpoint_engine
            saves.save(number)
            while step(saves if name == "beside" else None):
                pass
            for _ in range(2):
                step(None)
    ways["beside"][0].finish()
    writer = ways["beside"][1]
    assert isinstance(writer, BackgroundCheckpointEngine)
    print(flush=True)
    print(
        json.dumps(
            {
                "saves": {name: read_saves(folder / name) for name in ways},
                "steps": steps,
                "held_bytes": writer.held_bytes,
            }
        ),
        flush=True,
    )


if __name__ == "__main__":
    main()
