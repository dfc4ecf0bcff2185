"""How steadily the demo model's samples hold together in each precision: fp32, bf16 and fp16, from one seed.

    python -m tests.benchmarks.precision_consistency [--steps 60] [--clips FOLDER] [--json]

Trains the demo model (vdt-demo: 8 frames of 64 x 64, pixels as latents) three times for the same steps on
the same clips with the same noise, through DeepSpeed's engine on one rank, and samples the same clips
from the same noise. fp16 is forced: DeepSpeed's processor accelerator refuses it, although torch computes in
it. Without a folder the clips are made here: a texture that moves. The table of docs/monitoring.md.
"""

from __future__ import annotations

import argparse
import json
import os
import socket
import statistics
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

ALONE = {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1", "MASTER_ADDR": "127.0.0.1"}
FRAMES, SIZE, CLIPS, SEED, FACTOR = 8, 64, 4, 0, 8
SAMPLED = 4
MEASURES = ("temporal_flickering", "warping_error", "frame_correlation", "motion_pixels")
MOTIONS = ((0, 2), (1, 0), (-1, 1), (2, -1))
"""Rows and columns a frame that the made clips move by."""


def main() -> None:
    """Prints the table, or JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--clips", type=Path, help="folder of videos; default: clips made here")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    found = measure(arguments.steps, arguments.clips)
    if arguments.json:
        print(json.dumps(found, indent=2))
        return
    heads = ("", "loss, last tenth", *(name.replace("_", " ") for name in MEASURES), "skipped steps")
    print(f"| {' | '.join(heads)} |\n|{'---|' * len(heads)}")
    for name, row in found.items():
        loss = "" if row["loss"] is None else f"{row['loss']:.4f}"
        shown = [f"{row[key]:.{digits}f}" for key, digits in zip(MEASURES, (4, 5, 4, 2), strict=True)]
        print(f"| {name} | {loss} | {' | '.join(shown)} | {row['skipped']} |")


def measure(steps: int, folder: Path | None) -> dict[str, dict[str, Any]]:
    """By precision, and of the clips themselves."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        os.environ |= {**ALONE, "MASTER_PORT": str(probe.getsockname()[1]), "DS_ACCELERATOR": "cpu"}
    from deepspeed.accelerator import get_accelerator

    from vdsgen.model.consistency import consistency
    from vdsgen.model.sample import to_pixels

    get_accelerator().is_fp16_supported = lambda: True
    clips = made_clips() if folder is None else read_clips(folder)
    real = consistency([to_pixels(clip) for clip in clips])
    assert real is not None
    found: dict[str, dict[str, Any]] = {"the clips": {"loss": None, "skipped": "", **real.values()}}
    for dtype in ("fp32", "bf16", "fp16"):
        found[dtype] = one_precision(dtype, clips, steps)
    return found


def made_clips() -> list[Any]:
    """(3, T, H, W) in [-1, 1]: a smooth texture each, moving its own way."""
    import torch
    from torch.nn import functional as F

    from vdsgen.model.data.order import generator_for

    clips = []
    for clip, (rows, columns) in enumerate(MOTIONS):
        noise = torch.rand(1, 3, 16, 16, generator=generator_for(SEED, "texture", clip))
        picture = F.interpolate(noise, size=(2 * SIZE, 2 * SIZE), mode="bicubic")[0].clamp(0, 1) * 2 - 1
        frames = [
            picture[:, 20 + t * rows : 20 + t * rows + SIZE, 20 + t * columns : 20 + t * columns + SIZE]
            for t in range(FRAMES)
        ]
        clips.append(torch.stack(frames, dim=1))
    return clips


def read_clips(folder: Path) -> list[Any]:
    """The first frames of the first videos, scaled and cropped to the middle square."""
    import av
    import torch
    from torch.nn import functional as F

    clips = []
    for path in sorted(folder.glob("*.mp4"))[:CLIPS]:
        with av.open(str(path)) as container:
            decoded = (frame.to_ndarray(format="rgb24") for frame in container.decode(video=0))
            frames = [torch.from_numpy(frame) for frame in islice(decoded, FRAMES)]
        video = torch.stack(frames).permute(0, 3, 1, 2).float() / 127.5 - 1
        edge = min(video.shape[2:])
        top, left = ((side - edge) // 2 for side in video.shape[2:])
        square = video[:, :, top : top + edge, left : left + edge]
        clips.append(F.interpolate(square, size=(SIZE, SIZE), mode="area").transpose(0, 1))
    return clips


def one_precision(dtype: str, clips: list[Any], steps: int) -> dict[str, Any]:
    """Trains, samples, measures."""
    import torch

    from vdsgen.catalog.load import models
    from vdsgen.model.build import build_engine
    from vdsgen.model.consistency import consistency
    from vdsgen.model.latents import SpaceToDepthCodec
    from vdsgen.model.recipes.clips import noise_for
    from vdsgen.model.sample import Conditions, sample_latents, to_pixels
    from vdsgen.spec.architecture import Geometry
    from vdsgen.spec.sampling import SolverSettings
    from vdsgen.spec.training import Diffusion

    model, codec, edge = models()["vdt-demo"].sizes, SpaceToDepthCodec(FACTOR), SIZE // FACTOR
    geometry = Geometry(frames=FRAMES, patches=edge**2, text_tokens=0, latent_height=edge, latent_width=edge)
    engine = build_engine(config(dtype), model, geometry, SEED)
    data = batches([codec.encode(clip) for clip in clips], geometry)
    losses = [engine.train_step(data) for _ in range(steps)]
    assert model.classes is not None
    shown = min(SAMPLED, len(clips))
    noise = noise_for(model.in_channels, geometry, shown, SEED)
    conditions = Conditions(torch.arange(shown), torch.full((shown,), model.classes))
    sampled = sample_latents(
        engine.predict, noise, conditions, Diffusion(), SolverSettings(20, 1.0), geometry
    )
    measures = consistency([to_pixels(codec.decode(clip)) for clip in sampled])
    assert measures is not None
    last = statistics.mean(losses[-max(1, steps // 10) :])
    return {"loss": last, "skipped": int(engine.engine.skipped_steps), **measures.values()}


def batches(latents: list[Any], geometry: Any, size: int = CLIPS) -> Iterator[Any]:
    """Micro-batches of `size`; each clip is a class of its own."""
    import torch

    from vdsgen.model.data.order import generator_for
    from vdsgen.model.objective import training_pair
    from vdsgen.spec.training import Diffusion

    first = 0
    while True:
        pairs = [
            training_pair(
                latents[sample % len(latents)], generator_for(SEED, "sample", sample), Diffusion(), geometry
            )
            for sample in range(first, first + size)
        ]
        classes = torch.arange(first, first + size) % len(latents)
        noised = torch.stack([pair.noised for pair in pairs])
        times = torch.stack([pair.timestep for pair in pairs])
        yield (noised, times, classes), torch.stack([pair.target for pair in pairs])
        first += size


def config(dtype: str) -> dict[str, Any]:
    scaling = {"initial_scale_power": 9, "loss_scale_window": 2000, "hysteresis": 2}
    sections: dict[str, Any] = {
        "fp16": {"fp16": {"enabled": True, "loss_scale": 0, **scaling}},
        "bf16": {"bf16": {"enabled": True}},
    }
    return {
        "train_batch_size": CLIPS,
        "train_micro_batch_size_per_gpu": CLIPS,
        "gradient_accumulation_steps": 1,
        "zero_optimization": {"stage": 1},
        **sections.get(dtype, {}),
        "optimizer": {"type": "AdamW", "params": {"lr": 1e-3, "torch_adam": True, "fused": True}},
        "gradient_clipping": 1.0,
    }


if __name__ == "__main__":
    main()
