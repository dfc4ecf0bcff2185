"""A training run small enough for tests: synthetic clips, a tiny model, really rendered."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from contextlib import ExitStack
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np

from tests.forks.start import free_port, start
from tests.model.ranks import rank_environment
from tests.render.plans import plan_of, pool_of
from vdsgen.launch.commands import TRAINER
from vdsgen.launch.start import Request, prepare
from vdsgen.render.render import render_plan
from vdsgen.spec.architecture import Vdt
from vdsgen.spec.data import ClipSize, Data, SpaceToDepth
from vdsgen.spec.experiment import Experiment
from vdsgen.spec.optimization import AdamW
from vdsgen.spec.training import Sampling, Saving, Training

FRAMES, SIZE = 4, 16


def write_clips(folder: Path, count: int = 3) -> Path:
    """Moving stripes, half a second each."""
    folder.mkdir(parents=True)
    for clip in range(count):
        with av.open(str(folder / f"stripes {clip}.mp4"), "w") as container:
            stream = container.add_stream("libx264", rate=Fraction(16))
            stream.width, stream.height, stream.pix_fmt = 2 * SIZE, SIZE, "yuv420p"
            for time in range(8):
                columns = 128 + 100 * np.sin((np.arange(2 * SIZE) + 2 * time) * (clip + 1) / 4)
                picture = np.broadcast_to(columns[None, :, None], (SIZE, 2 * SIZE, 3)).astype(np.uint8)
                frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="rgb24")
                container.mux(stream.encode(frame))
            container.mux(stream.encode())
    return folder


def tiny_experiment(videos: Path, buckets: tuple[ClipSize, ...] = (), **training: Any) -> Experiment:
    sampling = Sampling(steps=3, guidance_scale=2.0, clips=3)
    values: dict[str, Any] = {
        "global_batch_size": 4,
        "steps": 6,
        "saving": Saving(every_steps=3, keep=2),
        "sampling": sampling,
        "optimizer": AdamW(learning_rate=1e-3),
    }
    return Experiment(
        name="tiny",
        model=Vdt(
            in_channels=48,
            patch_size=2,
            hidden_size=16,
            depth=4,
            heads=2,
            mlp_hidden_size=32,
            condition="class",
            classes=8,
        ),
        data=Data(
            videos=str(videos),
            frames=FRAMES,
            height=SIZE,
            width=SIZE,
            buckets=buckets,
            latents=SpaceToDepth(factor=4),
            workers=1,
        ),
        training=Training(**(values | training)),
    )


def render_tiny(
    directory: Path,
    videos: Path,
    *,
    training: dict[str, Any] | None = None,
    buckets: tuple[ClipSize, ...] = (),
    data_changes: dict[str, Any] | None = None,
    **plan: Any,
) -> Path:
    """Four processor ranks, 2 pipeline x 2 data, fp32, unless told otherwise."""
    values: dict[str, Any] = {"pipeline": 2, "data": 2, "zero_stage": 1, "dtype": "fp32", "accumulation": 2}
    values |= plan
    ranks = values["pipeline"] * values["data"] * values.get("tensor", 1) * values.get("sequence", 1)
    pool = values.pop("pool", None) or pool_of(1, ranks, gpu="cpu")
    experiment = tiny_experiment(videos, buckets, **(training or {}))
    data = experiment.data.model_copy(update=data_changes or {})
    files = render_plan(plan_of(pool=pool, **values), experiment.model_copy(update={"data": data}))
    directory.mkdir(parents=True)
    for name, content in files.items():
        (directory / name).write_bytes(content)
    return directory


def launch_command(directory: Path, run: Path, *arguments: str) -> list[str]:
    return [sys.executable, "-m", "vdsgen", "launch", str(directory), "--output", str(run), *arguments]


@dataclass(frozen=True, slots=True)
class Finished:
    """How a launched run ended."""

    code: int
    shown: str


def launch(directory: Path, run: Path, *arguments: str, timeout_seconds: float = 280) -> Finished:
    result = subprocess.run(
        launch_command(directory, run, *arguments),
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=timeout_seconds,
        check=False,
    )
    return Finished(result.returncode, result.stdout)


def train(directory: Path, run: Path, *, steps: int | None = None, resume: bool = False) -> Finished:
    """What `launch` runs, in forks and without DeepSpeed's runner: its ranks with its arguments, after its
    checks. Costs a third of it."""
    prepared = prepare(Request(directory, run, steps=steps, resume=resume, launcher="deepspeed"))
    argv, size = prepared.commands[0].argv, prepared.job.world_size
    arguments, port = argv[argv.index(TRAINER) + 1 :], free_port()
    with tempfile.TemporaryFile("w+") as shown, ExitStack() as stack:
        ranks = []
        for rank in range(size):
            environment = rank_environment(rank, size, port)
            ranks.append(start(TRAINER, *arguments, environment=environment, stdout=shown))
            stack.callback(ranks[-1].kill)
        codes = {rank.wait(280) for rank in ranks}
        shown.seek(0)
        return Finished(max(codes, key=abs), shown.read())
