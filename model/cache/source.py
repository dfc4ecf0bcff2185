"""Training samples from the cache: loaders make all of each sample, and training only takes it over."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from vdsgen.errors import VdsgenError
from vdsgen.model.cache.reader import CachedClip, CacheReader
from vdsgen.model.data.clips import Clip
from vdsgen.model.data.condition import Conditions, conditions_for
from vdsgen.model.data.order import Draw, generator_for
from vdsgen.model.data.samples import (
    NO_PIXELS,
    MicroBatch,
    Noising,
    Prepared,
    Sample,
    check_channels,
    stacked,
)
from vdsgen.model.data.text import padded
from vdsgen.model.data.waiting import Stopwatch
from vdsgen.model.recipes.draw import Drawn, draw
from vdsgen.model.recipes.source import stacked as stacked_drawn
from vdsgen.spec.architecture import Vdt
from vdsgen.spec.data import Data
from vdsgen.spec.experiment import Experiment
from vdsgen.spec.geometry import geometries_of
from vdsgen.spec.recipes.recipe import Recipe

Decode = Callable[[torch.Tensor], torch.Tensor]
"""Latents (C, T', H', W') -> (3, T, H, W) float32, about [-1, 1]; loads what it needs when it is called."""


@dataclass(frozen=True, slots=True)
class CachedPreparation:
    """From a sample's place in the run to the sample, in whatever process or thread."""

    reader: CacheReader
    make: Callable[[CachedClip, Draw], Any]

    def prepare(self, draw: Draw) -> Prepared:
        watch = Stopwatch()
        cached = self.reader.read(draw)
        watch.decoded()
        sample = self.make(cached, draw)
        clip = Clip(NO_PIXELS, cached.position, cached.dropped, cached.skipped)
        return Prepared(draw, clip, None, watch.spent(), sample)


@dataclass(frozen=True, slots=True)
class CachedText:
    """Captions' embeddings, read when they are asked for."""

    reader: CacheReader
    max_tokens: int

    def of(self, position: int, *, dropped: bool = False) -> torch.Tensor:
        """(L, D) float32, zeros after the caption's last token."""
        caption = "" if dropped else self.reader.index.entries[position].caption
        return padded(self.reader.text(caption)["text"], self.max_tokens)


@dataclass(frozen=True, slots=True)
class CachedSource:
    """Of the bundled family, as `SampleSource` has samples from videos."""

    reader: CacheReader
    noising: Noising
    conditions: Conditions
    decode: Decode
    loads_in_threads: bool = True

    @property
    def preparation(self) -> CachedPreparation:
        return CachedPreparation(self.reader, functools.partial(_sample, self.noising, self.conditions))

    def finish(self, prepared: Prepared) -> Sample:
        assert isinstance(prepared.sample, Sample), "loaders make all of a sample"
        return prepared.sample

    def sample(self, draw: Draw) -> Sample:
        return self.finish(self.preparation.prepare(draw))

    def stacked(self, samples: list[Sample]) -> MicroBatch:
        return stacked(samples)


def _sample(noising: Noising, conditions: Conditions, cached: CachedClip, draw: Draw) -> Sample:
    pair = noising.pair_of(cached.clip["latents"], draw)
    condition = conditions.of(cached.position, dropped=cached.dropped)
    return Sample(pair.noised, pair.timestep, condition, pair.target)


def cached_source(experiment: Experiment, reader: CacheReader, decode: Decode) -> CachedSource:
    """Raises VdsgenError where latents, captions and model do not fit each other."""
    model, data, training = experiment.model, experiment.data, experiment.training
    assert isinstance(model, Vdt)
    check_channels(data, model)
    conditions: Conditions
    if model.condition == "text":
        conditions = _cached_text(reader, data, model)
    else:
        conditions = conditions_for(reader.index, data, model)
    noising = Noising(None, training.diffusion, geometries_of(data, model), training.seed)
    return CachedSource(reader, noising, conditions, decode)


def _cached_text(cached: CacheReader, data: Data, model: Vdt) -> CachedText:
    assert data.text_encoder is not None, "what embeddings are made with was checked when they were made"
    width = cached.text("")["text"].shape[1]
    if width != model.text_hidden_size:
        raise VdsgenError(
            f"the text encoder in {data.text_encoder.path} gives embeddings of width {width}, "
            f"model.text_hidden_size is {model.text_hidden_size}",
            remedy=f"set model.text_hidden_size to {width}",
        )
    return CachedText(cached, data.text_encoder.max_tokens)


@dataclass(frozen=True, slots=True)
class CachedRecipeSource:
    """Of a diffusers model, as `RecipeSource` has samples from videos."""

    reader: CacheReader
    """Drops no condition: the recipe does."""
    recipe: Recipe
    decode: Decode
    loads_in_threads: bool = True

    @property
    def preparation(self) -> CachedPreparation:
        return CachedPreparation(self.reader, functools.partial(_drawn, self.recipe, self.reader))

    def finish(self, prepared: Prepared) -> Drawn:
        assert isinstance(prepared.sample, Drawn), "loaders make all of a sample"
        return prepared.sample

    def sample(self, draw: Draw) -> Drawn:
        return self.finish(self.preparation.prepare(draw))

    def stacked(self, samples: Sequence[Drawn]) -> MicroBatch:
        return stacked_drawn(samples)

    def text(self, caption: str) -> dict[str, torch.Tensor]:
        """A caption's tensors."""
        return dict(self.reader.text(caption))

    def shown(self, sample: int) -> dict[str, torch.Tensor]:
        """What a sample video is conditioned on: the clip of sample `sample` of the run, and its caption."""
        cached = self.reader.read(Draw.of_one_size(sample))
        return {**cached.clip, **cached.text}


def _drawn(recipe: Recipe, reader: CacheReader, cached: CachedClip, place: Draw) -> Drawn:
    generator = generator_for(reader.seed, "objective", place.sample)
    return draw(recipe, {**cached.clip, **cached.text}, generator, empty=reader.text(""))
