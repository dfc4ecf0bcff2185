"""One rank of a layout test: trains a tiny model for a few steps on the real engine, under several configs.

Reads a job from standard input: {"cases": [...]} with one case after another on the same process group.
Prints, as its last line, a list with one result a case.
"""

from __future__ import annotations

import inspect
import json
import sys
from collections.abc import Iterator
from typing import Any

import deepspeed
import torch
from deepspeed.accelerator import get_accelerator

from vdsgen.model import corrections
from vdsgen.model.engine import Batch, TrainingEngine, build_engine
from vdsgen.model.layers.initial import Linear
from vdsgen.model.objective import training_pair
from vdsgen.spec.architecture import Geometry, Vdt
from vdsgen.spec.experiment import Diffusion

MODEL = Vdt(
    in_channels=3,
    patch_size=1,  # predictions are then permuted views: collectives must not send them as they lie
    hidden_size=32,
    depth=4,
    heads=2,
    mlp_hidden_size=64,
    condition="text",
    text_hidden_size=16,
)
GEOMETRY = Geometry(frames=3, patches=24, text_tokens=5, latent_height=4, latent_width=6)
SEED = 7
GLOBAL_BATCH = 4


def sample(index: int) -> tuple[tuple[torch.Tensor, ...], torch.Tensor]:
    """Sample `index` of the data order, from nothing but its index."""
    generator = torch.Generator().manual_seed(1000 + index)
    shape = (MODEL.in_channels, GEOMETRY.frames, GEOMETRY.latent_height, GEOMETRY.latent_width)
    latents = torch.randn(shape, generator=generator)
    text = torch.randn(GEOMETRY.text_tokens, MODEL.text_hidden_size, generator=generator)
    pair = training_pair(latents, generator, Diffusion(), GEOMETRY)
    return (pair.noised, pair.timestep, text), pair.target


def batches(engine: TrainingEngine, micro_batch_size: int, accumulation: int) -> Iterator[Batch]:
    """Micro-batches of this rank: the same global batch in every layout."""
    step = 0
    while True:
        for micro in range(accumulation):
            first = (
                step * GLOBAL_BATCH
                + micro * micro_batch_size * engine.data_parallel_size
                + engine.data_parallel_rank * micro_batch_size
            )
            samples = [sample(first + i) for i in range(micro_batch_size)]
            inputs = tuple(torch.stack(column) for column in zip(*(s[0] for s in samples), strict=True))
            yield inputs, torch.stack([s[1] for s in samples])
        step += 1


def start_nowhere_at_zero() -> None:
    """Draws the projections that start at zero as well: else most gradients of a first step are zero."""
    build = Linear.__init__

    def drawn(self: Linear, inputs: int, outputs: int, generator: torch.Generator, **_: bool) -> None:
        build(self, inputs, outputs, generator)

    Linear.__init__ = drawn  # type: ignore[assignment, method-assign]


def weights(engine: TrainingEngine) -> dict[str, list[float]]:
    """Sum and norm of each parameter that this rank holds, whole where ZeRO partitions it."""
    found = {}
    for name, parameter in engine.engine.module.named_parameters():
        with deepspeed.zero.GatheredParameters([parameter], enabled=hasattr(parameter, "ds_id")):
            value = parameter.detach().double()
            found[name] = [float(value.sum()), float(value.norm())]
    return found


def without_corrections() -> None:
    """Leaves out what model/corrections.py does to results, for the tests that show why it is there."""
    corrections.clip_across_stages = lambda engine, norm: None
    corrections.scaled_loss = lambda engine, loss: loss
    corrections.forget_initial_step = lambda engine: None


def recorded_segments(engine: TrainingEngine) -> set[tuple[int, int]]:
    """Fills with the segments that this stage of a pipeline recomputes, as its layers' numbers."""
    found: set[tuple[int, int]] = set()
    module = engine.engine.module
    if engine.pipelined:
        checkpoint = module.activation_checkpoint_func

        def recording(function: Any, *inputs: Any) -> Any:
            bounds = inspect.getclosurevars(function).nonlocals
            found.add((bounds["start"], bounds["end"]))
            return checkpoint(function, *inputs)

        module.activation_checkpoint_func = recording
    return found


def run_case(case: dict[str, Any]) -> dict[str, Any]:
    config = case["config"]
    if case.get("uncorrected"):
        without_corrections()
    # The CPU accelerator refuses fp16 although torch computes in it: this is what lets the engine's
    # loss scaling run here.
    get_accelerator().is_fp16_supported = lambda: "fp16" in config
    engine = build_engine(config, MODEL, GEOMETRY, SEED)
    segments = recorded_segments(engine)
    data = batches(engine, config["train_micro_batch_size_per_gpu"], config["gradient_accumulation_steps"])
    steps = []
    for _ in range(case["steps"]):
        loss = engine.train_step(data)
        steps.append(
            {
                "loss": loss,
                "grad_norm": engine.global_grad_norm,
                "loss_scale": engine.loss_scale,
            }
        )
    probe = [sample(index) for index in range(3)]
    inputs = tuple(torch.stack(column) for column in zip(*(s[0] for s in probe), strict=True))
    prediction = engine.predict(inputs)
    after = weights(engine)
    # Training goes on as if nothing had been predicted.
    steps.append({"loss": engine.train_step(data), "grad_norm": engine.global_grad_norm})
    return {
        "weights": after,
        "learning_rate": engine.learning_rate,
        "steps": steps,
        "segments": sorted(segments),
        "optimizer": type(engine.engine.optimizer).__name__,
        "prediction": prediction.flatten().double().tolist(),
        "prediction_dtype": str(prediction.dtype),
    }


def main() -> None:
    job = json.load(sys.stdin)
    torch.set_num_threads(1)
    start_nowhere_at_zero()
    results = [run_case(case) for case in job["cases"]]
    print(flush=True)
    print(json.dumps(results), flush=True)


if __name__ == "__main__":
    main()
