"""What recomputation, packing and offload of activations cost and hold, on the demo model and its real clips:

    python -m tests.benchmarks.activations [--repeats 7] [--warm-up 20] [--steps 20]

The model is trained for some steps first, as its gates start at zero. Then every setting runs the same clips
forward and backward: the error of its loss and gradients beside the plain run's, the seconds of one core,
and the bytes that it held beside those that plans count. Each setting is then trained further, the
same steps from the same weights.
"""

from __future__ import annotations

import argparse
import copy
import statistics
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import NamedTuple

import torch
from torch import Tensor

from tests.clips import real_clips
from vdsgen.catalog.profiles import profile_for
from vdsgen.catalog.resolve import resolve_experiment
from vdsgen.cost.memory import MemoryModel
from vdsgen.cost.settings import Settings
from vdsgen.model.activation_compression import Codec, Format
from vdsgen.model.activation_offload import ActivationOffload
from vdsgen.model.data.index import scan
from vdsgen.model.data.loader import Batches
from vdsgen.model.data.order import Share, SizeOrder
from vdsgen.model.data.samples import source_for
from vdsgen.model.objective import diffusion_loss
from vdsgen.model.pipeline import Batch, SequentialModel, layer_specs
from vdsgen.profile.engine_bytes import own_offloaded_activations
from vdsgen.profile.live_bytes import HOST, LiveBytes
from vdsgen.spec.architecture import Vdt
from vdsgen.spec.experiment import Experiment
from vdsgen.spec.geometry import geometry_of
from vdsgen.spec.load import load_experiment

ROOT = Path(__file__).parents[2]
MICRO_BATCH = 2
LEARNING_RATE = 1e-3


@dataclass(frozen=True, slots=True)
class Setting:
    """How activations are kept."""

    name: str
    interval: int = 1
    selective: bool = False
    packed: Format | None = None
    offload: bool = False


SETTINGS = (
    Setting("plain", interval=0),
    Setting("full"),
    Setting("selective", selective=True),
    Setting("full, int8", packed="int8"),
    Setting("full, fp8", packed="fp8"),
    Setting("selective, int8", selective=True, packed="int8"),
    Setting("selective, fp8", selective=True, packed="fp8"),
    Setting("full, offloaded", offload=True),
)


class Run(NamedTuple):
    """One forward and backward."""

    loss: float
    gradients: Tensor
    """All of them, one after the other, in float32."""


class Result(NamedTuple):
    """Of one setting."""

    loss_error: float
    gradient_error: float
    seconds: list[float]
    held_bytes: int
    planned_bytes: int
    host_bytes: int
    trained_loss: float


def experiment() -> Experiment:
    demo = resolve_experiment(load_experiment(ROOT / "examples/experiments/cpu-demo.yaml"))
    return demo.model_copy(update={"data": demo.data.model_copy(update={"videos": str(real_clips())})})


def batches(of: Experiment, steps: int) -> list[Batch]:
    """The run's first micro-batches."""
    source = source_for(of, scan(of.data))
    share = Share(0, 1, MICRO_BATCH, 1)
    with Batches(source, share, share.draws(SizeOrder(of.training.seed, (1,)), 0, steps)) as found:
        return [(batch[0], batch[1]) for batch in found]


def built(of: Experiment, setting: Setting) -> SequentialModel:
    model = of.model
    assert isinstance(model, Vdt)
    codec = None if setting.packed is None else Codec(setting.packed)
    return SequentialModel(
        layer_specs(model, geometry_of(of.data, model), of.training.seed),
        setting.interval,
        diffusion_loss,
        ActivationOffload() if setting.offload else None,
        selective_layers=model.depth + 2 if setting.selective else 0,
        codec=codec,
    )


def fresh(of: Experiment, setting: Setting, warm: dict[str, Tensor]) -> SequentialModel:
    """With the weights of the warmed-up model."""
    network = built(of, setting)
    network.load_state_dict(warm)
    return network


def train(network: SequentialModel, data: Sequence[Batch]) -> float:
    """Steps of AdamW; the mean loss of the last quarter."""
    optimizer = torch.optim.AdamW(network.parameters(), lr=LEARNING_RATE)
    losses = []
    for inputs, target in data:
        optimizer.zero_grad()
        loss = network(inputs, target)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
        losses.append(float(loss.detach()))
    return statistics.mean(losses[-max(1, len(losses) // 4) :])


def run(network: SequentialModel, batch: Batch) -> Run:
    for parameter in network.parameters():
        parameter.grad = torch.zeros_like(parameter)
    loss = network(*batch)
    loss.backward()
    gradients = [parameter.grad.flatten() for parameter in network.parameters() if parameter.grad is not None]
    return Run(float(loss.detach()), torch.cat(gradients).float())


def held(network: SequentialModel, batch: Batch) -> tuple[int, int]:
    """The most bytes in tensors that a first forward and backward make, beside weights, gradients and the
    clips, on the device and in host memory."""
    books = LiveBytes()
    own_offloaded_activations(SimpleNamespace(module=network), books)
    with books:
        with books.owner("given"):
            for parameter in network.parameters():
                parameter.detach()  # the books see what operators put out: now, and not in a later view
                parameter.grad = torch.zeros_like(parameter)
            for tensor in (*batch[0], batch[1]):
                tensor.detach()
        with books.phase("compute"):
            network(*batch).backward()
    return books.peak_of("compute", owner=""), books.peak_of("compute", owner=HOST)


def planned(of: Experiment, setting: Setting) -> int:
    """The same by the cost model."""
    model = of.model
    assert isinstance(model, Vdt)
    profile = profile_for(model)
    assert profile is not None, "the demo model's profile is committed"
    layers = model.depth + 2
    settings = Settings(
        pipeline_parallel_size=1,
        data_parallel_size=1,
        zero_stage=0,
        micro_batch_size=MICRO_BATCH,
        gradient_accumulation_steps=1,
        activation_checkpoint_interval=0,
        dtype="fp32",
        gradient_accumulation_dtype="fp32",
        reduce_bucket_elements=1,
        allgather_bucket_elements=1,
        offload_activations=setting.offload,
        activation_compression=setting.packed or "none",
    ).with_interval(setting.interval, 0, layers if setting.selective else 0)
    found = MemoryModel(profile, geometry_of(of.data, model)).activations(settings, 0, 0, layers)
    return found.peak_bytes - found.buffer_bytes


def measure(of: Experiment, warm: dict[str, Tensor], data: Sequence[Batch], repeats: int) -> Iterator[Result]:
    """One after the other, rounds of all settings in turn, so that what else the machine does hits all."""
    networks = [fresh(of, setting, warm) for setting in SETTINGS]
    runs = [run(network, data[0]) for network in networks]
    seconds: list[list[float]] = [[] for _ in SETTINGS]
    for _ in range(repeats):
        for network, own in zip(networks, seconds, strict=True):
            began = time.process_time()
            run(network, data[0])
            own.append(time.process_time() - began)
    plain = runs[0]
    for setting, network, one, own in zip(SETTINGS, networks, runs, seconds, strict=True):
        device, host = held(fresh(of, setting, warm), data[0])
        yield Result(
            loss_error=abs(one.loss - plain.loss) / abs(plain.loss),
            gradient_error=float((one.gradients - plain.gradients).norm() / plain.gradients.norm()),
            seconds=own,
            held_bytes=device,
            planned_bytes=planned(of, setting),
            host_bytes=host,
            trained_loss=train(network, data[1:]),
        )


def in_bf16(of: Experiment, warm: dict[str, Tensor], batch: Batch) -> float:
    """What bf16 alone does to the gradients: a measure for the rest."""
    exact, half = fresh(of, SETTINGS[0], warm), fresh(of, SETTINGS[0], warm).bfloat16()
    one, other = run(exact, batch).gradients, run(half, batch).gradients
    return float((other - one).norm() / one.norm())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--warm-up", type=int, default=20)
    parser.add_argument("--steps", type=int, default=20)
    chosen = parser.parse_args()
    torch.manual_seed(0)
    of = experiment()
    data = batches(of, chosen.warm_up + 1 + chosen.steps)
    network = built(of, SETTINGS[0])
    train(network, data[: chosen.warm_up])
    warm = copy.deepcopy(network.state_dict())
    results = list(measure(of, warm, data[chosen.warm_up :], chosen.repeats))
    columns = ("core seconds", "of plain", "MiB held", "planned", "ratio", "on the host", "loss", "gradients")
    print(f"| activations | {' | '.join(columns)} |")
    print(f"| --- |{' ---: |' * len(columns)}")
    plain = results[0]
    for setting, found in zip(SETTINGS, results, strict=True):
        ratio = statistics.median(a / b for a, b in zip(found.seconds, plain.seconds, strict=True))
        mib = [size / 2**20 for size in (found.held_bytes, found.planned_bytes, found.host_bytes)]
        print(
            f"| {setting.name} | {statistics.median(found.seconds):.3f} | {ratio:.2f} | {mib[0]:.1f} "
            f"| {mib[1]:.1f} | {found.planned_bytes / found.held_bytes:.3f} | {mib[2]:.1f} "
            f"| {found.loss_error:.1e} | {found.gradient_error:.1e} |"
        )
    print(f"\nGradients in bf16 with plain activations: {in_bf16(of, warm, data[chosen.warm_up]):.1e}")
    print(f"\nAfter {chosen.steps} more steps, the loss beside the plain run's {plain.trained_loss:.5f}:")
    for setting, found in zip(SETTINGS[1:], results[1:], strict=True):
        print(f"  {setting.name}: {found.trained_loss / plain.trained_loss - 1:+.1e}")


if __name__ == "__main__":
    main()
