"""AdamW with moments in int8 beside exact AdamW: the demo model on the demo's clips, the same samples.

    python -m tests.benchmarks.adamw_8bit --videos data/clips [--steps 100]

Prints a Markdown table: the losses' means over the first and the last tenth of the steps, bytes of the
optimizer's states, and seconds of its step.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from vdsgen.catalog.load import models
from vdsgen.model.adamw_8bit import AdamW8bit
from vdsgen.model.curves import first_and_last
from vdsgen.model.data.index import scan
from vdsgen.model.data.order import Draw
from vdsgen.model.data.samples import source_for
from vdsgen.model.objective import diffusion_loss
from vdsgen.model.pipeline import SequentialModel, layer_specs
from vdsgen.spec.data import Data
from vdsgen.spec.experiment import Experiment
from vdsgen.spec.geometry import geometry_of
from vdsgen.spec.training import Training

BATCH = 4
RATE = 1e-3


def experiment_of(videos: Path, steps: int) -> Experiment:
    return Experiment(
        name="moments",
        model=models()["vdt-demo"].sizes,
        data=Data(videos=str(videos), frames=8, height=64, width=64, workers=0),
        training=Training(global_batch_size=BATCH, steps=steps),
    )


def batches(experiment: Experiment) -> list[tuple[tuple[Tensor, ...], Tensor]]:
    """Of every step: the same for both optimizers."""
    source = source_for(experiment, scan(experiment.data))
    draws = range(BATCH * experiment.training.steps)
    samples = [source.sample(Draw.of_one_size(sample)) for sample in draws]
    return [source.stacked(samples[first : first + BATCH]) for first in range(0, len(samples), BATCH)]


def trained(experiment: Experiment, data: list[Any], optimizer_class: Any) -> tuple[list[float], int, float]:
    """(losses, bytes of states, seconds of an optimizer step)"""
    model_sizes: Any = experiment.model
    specs = layer_specs(model_sizes, geometry_of(experiment.data, model_sizes), seed=0)
    model = SequentialModel(specs, 0, diffusion_loss)
    optimizer = optimizer_class(model.parameters(), lr=RATE, betas=(0.9, 0.95), weight_decay=0.01)
    losses, seconds = [], 0.0
    for step, (inputs, target) in enumerate(data):
        for group in optimizer.param_groups:
            group["lr"] = RATE * min(1.0, (step + 1) / 10)
        loss = model(inputs, target)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        began = time.perf_counter()
        optimizer.step()
        seconds += time.perf_counter() - began
        losses.append(loss.item())
    states = [x for state in optimizer.state.values() for x in state.values() if torch.is_tensor(x)]
    return losses, sum(x.numel() * x.element_size() for x in states), seconds / len(data)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--videos", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=100)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    experiment = experiment_of(arguments.videos, arguments.steps)
    data = batches(experiment)
    print(
        f"vdt-demo, {arguments.steps} steps of {BATCH} clips, learning rate {RATE:g}, "
        f"torch {torch.__version__}"
    )
    print()
    print("| moments | first loss | last loss | states | a step |")
    print("|---|---|---|---|---|")
    for name, optimizer_class in (("fp32 (torch's AdamW)", torch.optim.AdamW), ("int8", AdamW8bit)):
        losses, state_bytes, seconds = trained(experiment, data, optimizer_class)
        first, last = first_and_last(losses)
        print(
            f"| {name} | {first:.4f} | {last:.4f} | {state_bytes / 2**20:.2f} MiB | {1000 * seconds:.1f} ms |"
        )


if __name__ == "__main__":
    main()
