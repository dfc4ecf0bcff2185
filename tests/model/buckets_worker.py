"""One rank of a test with clips of several sizes: trains a tiny model on the real engine, and resumes it.

Reads {"cases": [...], "folder": ...} from standard input and prints, as its last line, a result a case.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import torch

from tests.model.checkpoint_worker import rendered_of
from tests.model.layout_worker import MODEL, SEED, start_nowhere_at_zero, weights
from vdsgen.model import checkpoint
from vdsgen.model.build import build_engine
from vdsgen.model.data.order import Share, SizeOrder
from vdsgen.model.engine import TrainingEngine
from vdsgen.model.objective import training_pair
from vdsgen.model.pipeline import Batch
from vdsgen.profile.live_bytes import LiveBytes
from vdsgen.spec.architecture import Geometry
from vdsgen.spec.training import Diffusion, Saving

BASE = Geometry(frames=3, patches=24, text_tokens=5, latent_height=4, latent_width=6)
LARGEST = BASE._replace(frames=5, patches=80, latent_height=8, latent_width=10)
TURNED = BASE._replace(frames=2, latent_height=6, latent_width=4)
"""As many patches as BASE, in other rows."""
GEOMETRIES = (BASE, TURNED, LARGEST)
STEPS, SAVED = 6, 4


def sample(index: int, where: Geometry) -> tuple[tuple[torch.Tensor, ...], torch.Tensor]:
    """Sample `index`, from nothing but its index and size."""
    generator = torch.Generator().manual_seed(1000 + index)
    shape = (MODEL.in_channels, where.frames, where.latent_height, where.latent_width)
    latents = torch.randn(shape, generator=generator)
    text = torch.randn(where.text_tokens, MODEL.text_hidden_size, generator=generator)
    pair = training_pair(latents, generator, Diffusion(shift="resolution"), where)
    return (pair.noised, pair.timestep, text), pair.target


def micro_batches(
    engine: TrainingEngine,
    config: dict[str, Any],
    first: int,
    geometries: Sequence[Geometry],
    order: SizeOrder | None = None,
) -> Iterator[Batch]:
    """This rank's, from step `first` on."""
    micro = config["train_micro_batch_size_per_gpu"]
    share = Share(
        engine.data_parallel_rank, engine.data_parallel_size, micro, config["gradient_accumulation_steps"]
    )
    draws = share.draws(order or SizeOrder(SEED, (1,) * len(geometries)), first)
    while True:
        samples = [sample(draw.sample, geometries[draw.size]) for draw in islice(draws, micro)]
        inputs = tuple(torch.stack(column) for column in zip(*(s[0] for s in samples), strict=True))
        yield inputs, torch.stack([s[1] for s in samples])


def trained(engine: TrainingEngine, config: dict[str, Any], first: int, last: int) -> list[dict[str, Any]]:
    """Steps `first` to `last`."""
    data = micro_batches(engine, config, first, GEOMETRIES)
    steps = []
    for step in range(first, last):
        (size,) = sizes = SizeOrder(SEED, (1,) * len(GEOMETRIES)).of_step(step)
        loss = engine.train_step(data, sizes)
        steps.append({"size": size, "loss": loss, "grad_norm": engine.global_grad_norm})
    return steps


def peaks(config: dict[str, Any], geometries: Sequence[Geometry]) -> list[int]:
    """Bytes of live tensors at the peak of each geometry's second step."""
    found = [0] * len(geometries)
    tracker = LiveBytes()
    with tracker:
        engine = build_engine(config, MODEL, BASE, SEED)
        data = micro_batches(engine, config, 0, geometries)
        for step in range(2 * len(geometries)):
            (size,) = sizes = SizeOrder(SEED, (1,) * len(geometries)).of_step(step)
            tracker.forget_peaks()
            engine.train_step(data, sizes)
            found[size] = tracker.peak_bytes
    return found


def mixed(config: dict[str, Any]) -> dict[str, Any]:
    """Two steps whose micro-batches are of sizes of their own, one of them three times as often; then one
    step more after a prediction, which has shapes of its own."""
    order = SizeOrder(SEED, (1, 1, 3), config["gradient_accumulation_steps"])
    engine = build_engine(config, MODEL, BASE, SEED)
    data = micro_batches(engine, config, 0, GEOMETRIES, order)
    steps = []
    for step in range(3):
        if step == 2:
            engine.predict(tuple(tensor[None] for tensor in sample(0, BASE)[0]))
        loss = engine.train_step(data, order.of_step(step))
        steps.append({"sizes": order.of_step(step), "loss": loss, "grad_norm": engine.global_grad_norm})
    return {"steps": steps, "weights": weights(engine)}


def run_case(case: dict[str, Any], folder: Path) -> dict[str, Any]:
    config, run = case["config"], folder / case["name"]
    rendered = rendered_of(config)
    engine = build_engine(config, MODEL, BASE, SEED)
    steps = trained(engine, config, 0, SAVED)
    checkpoint.save(engine, run, SAVED, rendered, Saving(keep=1))
    # Predicting, as the sample video does, must leave no trace.
    inputs = [sample(index, BASE)[0] for index in range(2)]
    prediction = engine.predict(tuple(torch.stack(column) for column in zip(*inputs, strict=True)))
    steps += trained(engine, config, SAVED, STEPS)
    after = weights(engine)
    again = build_engine(config, MODEL, BASE, SEED)
    resumed = trained(again, config, checkpoint.resume(again, run, rendered), STEPS)
    return {
        "steps": steps,
        "resumed": resumed,
        "weights": after,
        "mixed": mixed(config),
        "prediction": prediction.flatten().double().tolist(),
        "peaks": peaks(config, GEOMETRIES) if case["measured"] else [],
        "peak_alone": peaks(config, [LARGEST])[0] if case["measured"] else 0,
    }


def main() -> None:
    job = json.load(sys.stdin)
    torch.set_num_threads(1)
    start_nowhere_at_zero()
    results = [run_case(case, Path(job["folder"])) for case in job["cases"]]
    print(flush=True)
    print(json.dumps(results), flush=True)


if __name__ == "__main__":
    main()
