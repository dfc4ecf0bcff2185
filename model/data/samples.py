"""From a sample's place in the run to what the model trains on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from vdsgen.errors import VdsgenError
from vdsgen.model.data.clips import Clip, ClipReader
from vdsgen.model.data.condition import Conditions, conditions_for
from vdsgen.model.data.index import Index
from vdsgen.model.data.order import Draw, generator_for
from vdsgen.model.data.picture import to_unit_range
from vdsgen.model.data.waiting import Spent, Stopwatch
from vdsgen.model.latents import LatentCodec, codec_for
from vdsgen.model.objective import Pair, training_pair
from vdsgen.spec.architecture import Geometry, Vdt
from vdsgen.spec.data import Data
from vdsgen.spec.experiment import Experiment
from vdsgen.spec.geometry import geometries_of
from vdsgen.spec.training import Diffusion

MicroBatch = tuple[tuple[torch.Tensor, ...], Any]
"""((noised (B, C, T, H, W), timestep (B,)[, condition (B,) or (B, L, D)]), target (B, C, T, H, W)); of models
of diffusers what their recipe says (vdsgen.model.recipes.source)."""


@dataclass(frozen=True, slots=True)
class Sample:
    """One training sample."""

    noised: torch.Tensor
    """(C, T, H, W) float32"""
    timestep: torch.Tensor
    """() float32 in [0, 1]"""
    condition: torch.Tensor | None
    """() int64 class, (L, D) float32 text embedding, or None"""
    target: torch.Tensor
    """(C, T, H, W) float32"""


@dataclass(frozen=True, slots=True)
class Noising:
    """From pixels to the training pair. Noise and timestep depend on the sample's index and size alone."""

    codec: LatentCodec | None
    """None: latents come from a cache."""
    diffusion: Diffusion
    geometries: tuple[Geometry, ...]
    """In the order of `Data.sizes`."""
    seed: int

    def pair(self, video: torch.Tensor, draw: Draw) -> Pair:
        """uint8 (3, T, H, W) -> noised and target (C, T', H', W') and the timestep, on the CPU."""
        assert self.codec is not None, "latents are cached, pixels are not expected"
        return self.pair_of(self.codec.encode(to_unit_range(video)).cpu(), draw)

    def pair_of(self, latents: torch.Tensor, draw: Draw) -> Pair:
        """Latents (C, T', H', W') of any element type -> the same."""
        generator = generator_for(self.seed, "objective", draw.sample)
        return training_pair(latents, generator, self.diffusion, self.geometries[draw.size])


NO_PIXELS = torch.empty((3, 0, 0, 0), dtype=torch.uint8)


@dataclass(frozen=True, slots=True)
class Prepared:
    """A sample as it comes from a loader worker."""

    draw: Draw
    clip: Clip
    pair: Pair | None
    """None: the codec has weights, and runs in the training process."""
    spent: Spent
    sample: Any = None
    """Where a loader has made all of it."""


@dataclass(frozen=True, slots=True)
class Preparation:
    """The part of making a sample that loader workers do: no weights, nothing on the accelerator."""

    reader: ClipReader
    noising: Noising | None

    def prepare(self, draw: Draw) -> Prepared:
        watch = Stopwatch()
        clip = self.reader.read(draw)
        watch.decoded()
        if self.noising is None:
            return Prepared(draw, clip, None, watch.spent())
        pair = self.noising.pair(clip.video, draw)
        # The pixels have done their work; they would only be copied from process to process.
        without = Clip(NO_PIXELS, clip.position, clip.dropped, clip.skipped)
        return Prepared(draw, without, pair, watch.spent())


@dataclass(frozen=True, slots=True)
class SampleSource:
    """A pure function from a sample's place in the run to the sample, in two halves."""

    reader: ClipReader
    noising: Noising
    conditions: Conditions
    loads_in_threads: bool = False

    @property
    def preparation(self) -> Preparation:
        codec = self.noising.codec
        return Preparation(self.reader, self.noising if codec is not None and codec.cheap else None)

    def finish(self, prepared: Prepared) -> Sample:
        """The half that stays in the training process."""
        clip = prepared.clip
        pair = prepared.pair or self.noising.pair(clip.video, prepared.draw)
        condition = self.conditions.of(clip.position, dropped=clip.dropped)
        return Sample(pair.noised, pair.timestep, condition, pair.target)

    def sample(self, draw: Draw) -> Sample:
        return self.finish(self.preparation.prepare(draw))

    def stacked(self, samples: list[Sample]) -> MicroBatch:
        return stacked(samples)

    def decode(self, latents: torch.Tensor) -> torch.Tensor:
        """(C, T', H', W') -> (3, T, H, W) float32, about [-1, 1], not clipped"""
        assert self.noising.codec is not None
        return self.noising.codec.decode(latents)


def stacked(samples: list[Sample]) -> MicroBatch:
    """A micro-batch of these samples."""
    inputs = [[sample.noised for sample in samples], [sample.timestep for sample in samples]]
    conditions = [sample.condition for sample in samples if sample.condition is not None]
    if conditions:
        inputs.append(conditions)
    return tuple(map(torch.stack, inputs)), torch.stack([sample.target for sample in samples])


def source_for(experiment: Experiment, index: Index, device: torch.device | str = "cpu") -> SampleSource:
    """The samples of an experiment whose model is resolved, over the clips of `index`.

    An autoencoder's weights stay on `device`; a text encoder runs there, and is dropped.
    Raises VdsgenError where clips, codec, encoder and model do not fit each other.
    """
    model, data, training = experiment.model, experiment.data, experiment.training
    assert isinstance(model, Vdt), "the experiment's model has not been resolved"
    check_channels(data, model)
    codec = codec_for(data, device)
    dropout = training.diffusion.condition_dropout
    return SampleSource(
        reader=ClipReader(index, data, training.seed, dropout),
        noising=Noising(codec, training.diffusion, geometries_of(data, model), training.seed),
        conditions=conditions_for(index, data, model, device),
    )


def check_channels(data: Data, model: Vdt) -> None:
    """Raises VdsgenError where latents are not what the model takes."""
    channels = data.latents.channels
    if channels != model.in_channels:
        raise VdsgenError(
            f"the latent codec gives {channels} channels, model.in_channels is {model.in_channels}",
            remedy=f"set model.in_channels to {channels}",
        )
