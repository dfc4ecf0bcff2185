"""The loss on held-out clips at fixed noise levels with fixed noise, through the engine as it trains.

Every sample is a function of the seed, the clip's path and the noise level alone, so that two losses differ
by the weights and nothing else, and nothing of the training sequence is used up.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from deepspeed import comm as dist
from torch import Tensor

from vdsgen.model.agreement import known_to_all
from vdsgen.model.cache.source import CachedRecipeSource, CachedSource
from vdsgen.model.data.clips import ClipReader
from vdsgen.model.data.condition import conditions_for
from vdsgen.model.data.held_out import hold_out
from vdsgen.model.data.index import Index
from vdsgen.model.data.order import generator_for
from vdsgen.model.data.picture import to_unit_range
from vdsgen.model.data.samples import SampleSource
from vdsgen.model.engine import TrainingEngine
from vdsgen.model.heartbeat import HEART
from vdsgen.model.json_lines import as_line, read_lines
from vdsgen.model.objective import pair_at, timestep_at
from vdsgen.model.pipeline import Batch
from vdsgen.model.recipes.held_out import recipe_held_out
from vdsgen.model.recipes.source import RecipeSource
from vdsgen.model.sources import AnySource
from vdsgen.spec.architecture import Vdt
from vdsgen.spec.experiment import Experiment
from vdsgen.spec.geometry import geometry_of
from vdsgen.spec.run import VALIDATION, Layout
from vdsgen.spec.training import Diffusion

FILE = VALIDATION


def shared_held_out(experiment: Experiment, index: Index) -> tuple[Index, Index | None]:
    """(clips to train on, held-out clips or None) of the clips found in `data.videos`. Collective."""
    validation = experiment.training.validation
    if validation is None:
        return index, None
    return known_to_all(lambda: hold_out(index, experiment.data, validation))


class HeldOut(Protocol):
    """Held-out clips, encoded once. Sample p is clip p // levels at noise level p % levels."""

    @property
    def paths(self) -> tuple[str, ...]: ...
    @property
    def quantiles(self) -> tuple[float, ...]:
        """The noise levels, as quantiles of those that training draws."""
        ...

    @property
    def timesteps(self) -> Tensor:
        """(levels,) float32: the same as times."""
        ...

    @property
    def samples(self) -> int: ...
    def sample(self, place: int) -> Batch:
        """Without batch axis. A clip has the same noise at all levels."""
        ...


@dataclass(frozen=True, slots=True)
class BundledHeldOut:
    """Of a model of the bundled family."""

    seed: int
    diffusion: Diffusion
    paths: tuple[str, ...]
    quantiles: tuple[float, ...]
    timesteps: Tensor
    latents: tuple[Tensor, ...]
    """(C, T, H, W) float32 each, in host memory; none where this rank reads no clips."""
    conditions: tuple[Tensor | None, ...]

    @property
    def samples(self) -> int:
        return len(self.paths) * len(self.timesteps)

    def sample(self, place: int) -> Batch:
        """((noised, timestep[, condition]), target)"""
        clip, level = divmod(place, len(self.timesteps))
        clean, condition = self.latents[clip], self.conditions[clip]
        generator = generator_for(self.seed, "validation", self.paths[clip])
        noise = torch.randn(clean.shape, generator=generator)
        pair = pair_at(clean, noise, self.timesteps[level], self.diffusion)
        inputs = (pair.noised, pair.timestep)
        return inputs if condition is None else (*inputs, condition), pair.target


def held_out_of(
    experiment: Experiment, index: Index, source: AnySource | None, device: torch.device | str = "cpu"
) -> HeldOut:
    """The clips of `index`, encoded where this rank reads clips (`source`), text on `device`; or read from
    the cache, where `source` is of the held-out clips in it."""
    validation, model = experiment.training.validation, experiment.model
    assert validation is not None, "held-out clips are asked for"
    if not isinstance(model, Vdt):
        assert source is None or isinstance(source, RecipeSource | CachedRecipeSource)
        return recipe_held_out(experiment, index, source)
    assert source is None or isinstance(source, SampleSource | CachedSource)
    places = range(len(index.entries))
    latents: list[Tensor] = []
    conditions: list[Tensor | None] = []
    if isinstance(source, CachedSource):
        latents = [source.reader.middle(place)["latents"].float() for place in places]
        conditions = [source.conditions.of(place) for place in places]
    elif source is not None:
        assert source.noising.codec is not None, "opened to encode"
        reader = ClipReader(index, experiment.data.model_copy(update={"decoded_cache_mib": 0}), 0, 0.0)
        of_clips = conditions_for(index, experiment.data, model, device)
        for place in places:
            pixels = to_unit_range(reader.middle(place))
            latents.append(source.noising.codec.encode(pixels).cpu().float())
            conditions.append(of_clips.of(place))
    training, geometry = experiment.training, geometry_of(experiment.data, model)
    times = [timestep_at(quantile, training.diffusion, geometry) for quantile in validation.quantiles]
    return BundledHeldOut(
        seed=training.seed,
        diffusion=training.diffusion,
        paths=tuple(entry.path for entry in index.entries),
        quantiles=validation.quantiles,
        timesteps=torch.stack(times),
        latents=tuple(latents),
        conditions=tuple(conditions),
    )


@dataclass(frozen=True, slots=True)
class Rows:
    """Which samples this data rank computes: `micro_batches` of `size` each, as many on every rank. Rows
    beyond the last sample repeat it, and count nowhere."""

    rank: int
    ranks: int
    size: int
    micro_batches: int
    samples: int

    @classmethod
    def of(cls, samples: int, rank: int, ranks: int, micro_batch_size: int) -> Rows:
        size = min(micro_batch_size, math.ceil(samples / ranks))
        return cls(rank, ranks, size, math.ceil(samples / (size * ranks)), samples)

    def of_micro_batch(self, micro: int) -> range:
        """Places of its samples; those from `samples` on are repeats."""
        first = (micro * self.ranks + self.rank) * self.size
        return range(first, first + self.size)


def batches_of(held_out: HeldOut, rows: Rows) -> Iterator[Batch]:
    """The micro-batches of one data rank."""
    for micro in range(rows.micro_batches):
        HEART.come_on()
        samples = [held_out.sample(min(place, rows.samples - 1)) for place in rows.of_micro_batch(micro)]
        inputs, targets = zip(*samples, strict=True)
        yield _columns(inputs), torch.stack(targets) if torch.is_tensor(targets[0]) else _columns(targets)


def _columns(rows: Sequence[Any]) -> tuple[Tensor, ...]:
    return tuple(torch.stack(column) for column in zip(*rows, strict=True))


def held_out_losses(
    engine: TrainingEngine, held_out: HeldOut, layout: Layout, micro_batch_size: int
) -> Tensor:
    """(clips, levels) float32 on the CPU: the loss of every sample, the same on every rank. Collective."""
    rows = Rows.of(held_out.samples, engine.data_parallel_rank, engine.data_parallel_size, micro_batch_size)
    batches = map(engine.own_rows, batches_of(held_out, rows)) if engine.needs_data else iter(())
    found = engine.sample_losses(batches, rows.micro_batches)
    losses = torch.zeros(held_out.samples, dtype=torch.float32, device=engine.device)
    # Tensor-parallel ranks all have the same loss, sequence-parallel ones that of equal parts of a clip.
    share = 1 / (layout.tensor_parallel_size * layout.sequence_parallel_size)
    for micro, of_rows in enumerate(found):
        for place, loss in zip(rows.of_micro_batch(micro), of_rows, strict=True):
            if place < held_out.samples:
                losses[place] = loss * share
    dist.all_reduce(losses)
    return losses.cpu().view(len(held_out.paths), len(held_out.timesteps))


@dataclass(frozen=True, slots=True)
class ValidationMetrics:
    """One line of validation.jsonl. A value that is not finite is `null` in the file."""

    step: int
    """Steps that the weights have been trained for; 0 is before the first."""
    weights: str
    """`trained`, or `ema` for their average."""
    loss: float
    """Mean over clips and noise levels."""
    quantiles: tuple[float, ...]
    timesteps: tuple[float, ...]
    loss_by_quantile: tuple[float, ...]
    """Mean over clips at each."""
    clips: int
    seconds: float
    peak_memory_bytes: list[int]
    """While it ran, one a rank; vdsgen.model.memory says of what."""

    def line(self) -> str:
        return as_line(asdict(self))


def validate(
    engine: TrainingEngine, held_out: HeldOut, layout: Layout, micro_batch_size: int
) -> dict[str, Any]:
    """`ValidationMetrics` but for `step`, `weights` and `peak_memory_bytes`. Collective."""
    began = time.perf_counter()
    losses = held_out_losses(engine, held_out, layout, micro_batch_size)
    return {
        "loss": float(losses.mean()),
        "quantiles": held_out.quantiles,
        "timesteps": tuple(held_out.timesteps.tolist()),
        "loss_by_quantile": tuple(losses.mean(0).tolist()),
        "clips": len(held_out.paths),
        "seconds": time.perf_counter() - began,
    }


def read_validation(run: Path) -> list[dict[str, Any]]:
    """Every whole line of a run's validation.jsonl, [] where there is none."""
    return read_lines(run / FILE)
