"""One rank of a layout test: trains a tiny model for a few steps on the real engine, under several configs.

Reads a job from standard input: {"cases": [...]} with one case after another on the same process group, and
`frames`, where clips have another number of latent frames.
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
from torch.utils.checkpoint import checkpoint as torch_checkpoint

from vdsgen.model import corrections, pipeline
from vdsgen.model.build import build_engine
from vdsgen.model.engine import TrainingEngine
from vdsgen.model.layers.initial import Linear
from vdsgen.model.layers.tensor_parallel import RowParallelLinear, is_split
from vdsgen.model.objective import training_pair
from vdsgen.model.pipeline import Batch
from vdsgen.model.validation import BundledHeldOut, held_out_losses
from vdsgen.spec.architecture import Geometry, Vdt
from vdsgen.spec.run import layout_of
from vdsgen.spec.training import Diffusion

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


def sample(index: int, geometry: Geometry = GEOMETRY) -> tuple[tuple[torch.Tensor, ...], torch.Tensor]:
    """Sample `index` of the data order, from nothing but its index."""
    generator = torch.Generator().manual_seed(1000 + index)
    shape = (MODEL.in_channels, geometry.frames, geometry.latent_height, geometry.latent_width)
    latents = torch.randn(shape, generator=generator)
    text = torch.randn(geometry.text_tokens, MODEL.text_hidden_size, generator=generator)
    pair = training_pair(latents, generator, Diffusion(), geometry)
    return (pair.noised, pair.timestep, text), pair.target


def batches(
    engine: TrainingEngine, micro_batch_size: int, accumulation: int, geometry: Geometry = GEOMETRY
) -> Iterator[Batch]:
    """Micro-batches of this rank: the same global batch in every layout."""
    step = 0
    while True:
        for micro in range(accumulation):
            first = (
                step * GLOBAL_BATCH
                + micro * micro_batch_size * engine.data_parallel_size
                + engine.data_parallel_rank * micro_batch_size
            )
            samples = [sample(first + i, geometry) for i in range(micro_batch_size)]
            inputs = tuple(torch.stack(column) for column in zip(*(s[0] for s in samples), strict=True))
            yield engine.own_rows((inputs, torch.stack([s[1] for s in samples])))
        step += 1


def held_out_clips(geometry: Geometry) -> BundledHeldOut:
    """Three clips at three noise levels: as many samples for each of up to four data ranks, and one over."""
    shape = (MODEL.in_channels, geometry.frames, geometry.latent_height, geometry.latent_width)
    generator = torch.Generator().manual_seed(11)
    text = (geometry.text_tokens, MODEL.text_hidden_size)
    return BundledHeldOut(
        seed=SEED,
        diffusion=Diffusion(),
        paths=("a", "b", "c"),
        quantiles=(0.1, 0.5, 0.9),
        timesteps=torch.tensor([0.2, 0.5, 0.8]),
        latents=tuple(torch.randn(shape, generator=generator) for _ in range(3)),
        conditions=tuple(torch.randn(text, generator=generator) for _ in range(3)),
    )


def start_nowhere_at_zero() -> None:
    """Draws the projections that start at zero as well: else most gradients of a first step are zero."""
    build = Linear.__init__

    def drawn(self: Linear, inputs: int, outputs: int, generator: torch.Generator, **_: bool) -> None:
        build(self, inputs, outputs, generator)

    Linear.__init__ = drawn  # type: ignore[assignment, method-assign]
    build_row = RowParallelLinear.__init__

    def drawn_row(self: RowParallelLinear, *sizes: Any, **_: bool) -> None:
        build_row(self, *sizes)

    RowParallelLinear.__init__ = drawn_row  # type: ignore[assignment, method-assign]


def weights(engine: TrainingEngine) -> dict[str, list[float]]:
    """Sum and norm of each parameter that this rank holds, whole where ZeRO partitions it. Of those that are
    split between tensor-parallel ranks, sum and norm of their parts together."""
    found = {}
    mpu = engine.engine.mpu
    for name, parameter in engine.engine.module.named_parameters():
        with deepspeed.zero.GatheredParameters([parameter], enabled=hasattr(parameter, "ds_id")):
            value = parameter.detach().double()
            figures = torch.stack([value.sum(), value.square().sum()])
            if is_split(parameter):
                torch.distributed.all_reduce(figures, group=mpu.get_slice_parallel_group())
            found[name] = [float(figures[0]), float(figures[1].sqrt())]
    return found


def without_corrections() -> None:
    """Leaves out what model/corrections.py does to results, for the tests that show why it is there."""
    corrections.clip_across_stages = lambda engine, norm: None
    corrections.scaled_loss = lambda engine, loss: loss
    corrections.forget_initial_step = lambda engine: None
    corrections.mark_split_gradients = lambda engine: None


def recorded_segments(engine: TrainingEngine) -> set[tuple[int, int]]:
    """Fills with the segments that this stage recomputes, as its layers' numbers: those that DeepSpeed makes
    of a pipeline's, and those that we do."""
    found: set[tuple[int, int]] = set()
    module = engine.engine.module

    def noting(function: Any, layers: Any, *inputs: Any, **options: Any) -> Any:
        own = module.forward_funcs if engine.pipelined else list(module.children())
        begin = own.index(layers[0])
        found.add((begin, begin + len(layers)))
        return torch_checkpoint(function, layers, *inputs, **options)

    pipeline.checkpoint = noting  # type: ignore[attr-defined, assignment]
    if engine.pipelined:
        checkpoint = module.activation_checkpoint_func

        def recording(function: Any, *inputs: Any) -> Any:
            if torch.is_grad_enabled():  # not where it only predicts
                bounds = inspect.getclosurevars(function).nonlocals
                found.add((bounds["start"], bounds["end"]))
            return checkpoint(function, *inputs)

        module.activation_checkpoint_func = recording
    return found


def run_case(case: dict[str, Any], geometry: Geometry) -> dict[str, Any]:
    config = case["config"]
    if case.get("uncorrected"):
        without_corrections()
    # The CPU accelerator refuses fp16 although torch computes in it: this is what lets the engine's
    # loss scaling run here.
    get_accelerator().is_fp16_supported = lambda: "fp16" in config
    engine = build_engine(config, MODEL, geometry, SEED)
    segments = recorded_segments(engine)
    micro, accumulation = config["train_micro_batch_size_per_gpu"], config["gradient_accumulation_steps"]
    data = batches(engine, micro, accumulation, geometry)
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
    held_out = []
    if not case.get("unwatched"):
        held_out = held_out_losses(engine, held_out_clips(geometry), layout_of(config), micro).tolist()
    probe = [sample(index, geometry) for index in range(3)]
    inputs = tuple(torch.stack(column) for column in zip(*(s[0] for s in probe), strict=True))
    prediction = torch.zeros(()) if case.get("unwatched") else engine.predict(inputs)
    after = weights(engine)
    # Training goes on as if nobody had looked.
    steps.append({"loss": engine.train_step(data), "grad_norm": engine.global_grad_norm})
    return {
        "held_out": held_out,
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
    geometry = GEOMETRY._replace(frames=job.get("frames", GEOMETRY.frames))
    results = [run_case(case, geometry) for case in job["cases"]]
    print(flush=True)
    print(json.dumps(results), flush=True)


if __name__ == "__main__":
    main()
