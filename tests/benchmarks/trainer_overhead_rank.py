"""One rank of `trainer_overhead`.

python -m tests.benchmarks.trainer_overhead_rank CONTENDER STEPS MICRO_BATCHES OUT.json

The environment is a launcher's (RANK, WORLD_SIZE, ...).
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from vdsgen.spec.architecture import Geometry
from vdsgen.spec.diffusers_model import DiffusersModel

CONFIG: dict[str, Any] = {
    "patch_size": [1, 2, 2],
    "num_attention_heads": 6,
    "attention_head_dim": 64,
    "in_channels": 16,
    "out_channels": 16,
    "text_dim": 64,
    "freq_dim": 256,
    "ffn_dim": 1536,
    "num_layers": 10,
    "cross_attn_norm": True,
    "qk_norm": "rms_norm_across_heads",
}
MODEL = DiffusersModel(family="diffusers", name="wan", class_name="WanTransformer3DModel", config=CONFIG)
FRAMES, EDGE, TEXT_TOKENS = 5, 16, 64
LEARNING_RATE = 1e-4
WHOLE = 12
"""Layers: the first, the blocks, the last."""


def sample(index: int) -> tuple[tuple[Tensor, ...], Tensor]:
    """((noised, timestep, text), target), batches of one."""
    generator = torch.Generator().manual_seed(index)
    clip = torch.randn(1, 16, FRAMES, EDGE, EDGE, generator=generator)
    text = torch.randn(1, TEXT_TOKENS, CONFIG["text_dim"], generator=generator)
    timestep = torch.full((1,), 1000 * float(torch.rand((), generator=generator)))
    return (clip, timestep, text), torch.randn(clip.shape, generator=generator)


def pipeline(steps: int, micro_batches: int) -> dict[str, Any]:
    from deepspeed.runtime.pipe import schedule

    from vdsgen.model.build import build_engine

    config = {
        "train_batch_size": micro_batches,
        "train_micro_batch_size_per_gpu": 1,
        "gradient_accumulation_steps": micro_batches,
        "steps_per_print": 10**9,
        "optimizer": {
            "type": "AdamW",
            "params": {"lr": LEARNING_RATE, "torch_adam": True, "fused": True, "weight_decay": 0.01},
        },
        "pipeline": {"stages": 2, "partition": [0, WHOLE // 2, WHOLE]},
    }
    geometry = Geometry(FRAMES, EDGE * EDGE // 4, TEXT_TOKENS, EDGE, EDGE)
    engine = build_engine(config, MODEL, geometry, seed=0)
    forward: list[float] = []
    backward: list[float] = []
    handlers = engine.engine._INSTRUCTION_MAP
    engine.engine._INSTRUCTION_MAP = {
        **handlers,
        schedule.ForwardPass: _timed(handlers[schedule.ForwardPass], forward),
        schedule.BackwardPass: _timed(handlers[schedule.BackwardPass], backward),
    }
    weight = torch.ones(1)
    found = []
    for step in range(steps):
        batches = (
            (inputs, (target, weight))
            for inputs, target in (sample(step * micro_batches + place) for place in range(micro_batches))
        )
        began = time.perf_counter()
        engine.train_step(batches)
        found.append(time.perf_counter() - began)
    return {"step_seconds": found, "forward_seconds": forward, "backward_seconds": backward}


def _timed(handler: Callable[..., Any], into: list[float]) -> Callable[..., Any]:
    def run(*arguments: Any, **named: Any) -> Any:
        began = time.perf_counter()
        result = handler(*arguments, **named)
        into.append(time.perf_counter() - began)
        return result

    return run


def _diffusers_model() -> Any:
    from diffusers import WanTransformer3DModel

    torch.manual_seed(0)
    return WanTransformer3DModel.from_config(CONFIG)


def _own(step: int, micro_batches: int) -> Iterator[tuple[tuple[Tensor, ...], Tensor]]:
    """This data rank's samples of a step."""
    rank, world = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    for place in range(rank, micro_batches, world):
        yield sample(step * micro_batches + place)


def _loss(model: Any, inputs: tuple[Tensor, ...], target: Tensor) -> Tensor:
    prediction = model(*inputs, return_dict=False)[0]
    return torch.nn.functional.mse_loss(prediction.float(), target)


def plain(steps: int, micro_batches: int) -> dict[str, Any]:
    torch.distributed.init_process_group("gloo")
    model = torch.nn.parallel.DistributedDataParallel(_diffusers_model())
    optimizer = torch.optim.AdamW(model.parameters(), lr=LEARNING_RATE, weight_decay=0.01, fused=True)
    each = micro_batches // int(os.environ["WORLD_SIZE"])
    found = []
    for step in range(steps):
        began = time.perf_counter()
        for place, (inputs, target) in enumerate(_own(step, micro_batches)):
            with model.no_sync() if place < each - 1 else nullcontext():
                loss = _loss(model, inputs, target) / each
                torch.autograd.backward(loss)
        optimizer.step()
        optimizer.zero_grad()
        found.append(time.perf_counter() - began)
    return {"step_seconds": found}


def accelerate(steps: int, micro_batches: int) -> dict[str, Any]:
    from accelerate import Accelerator  # type: ignore[import-untyped]

    each = micro_batches // int(os.environ["WORLD_SIZE"])
    accelerator = Accelerator(gradient_accumulation_steps=each, cpu=True)
    model = _diffusers_model()
    optimizer = torch.optim.AdamW(model.parameters(), lr=LEARNING_RATE, weight_decay=0.01, fused=True)
    model, optimizer = accelerator.prepare(model, optimizer)
    found = []
    for step in range(steps):
        began = time.perf_counter()
        for inputs, target in _own(step, micro_batches):
            with accelerator.accumulate(model):
                accelerator.backward(_loss(model, inputs, target))
                optimizer.step()
                optimizer.zero_grad()
        found.append(time.perf_counter() - began)
    return {"step_seconds": found}


if __name__ == "__main__":
    torch.set_num_threads(1)
    contender, steps, micro_batches, out = sys.argv[1:]
    run = {"pipeline": pipeline, "plain PyTorch": plain, "Accelerate": accelerate}[contender]
    Path(out).write_text(json.dumps(run(int(steps), int(micro_batches))))
    sys.stdout.flush()
    os._exit(0)  # taking an interpreter full of torch apart takes seconds
