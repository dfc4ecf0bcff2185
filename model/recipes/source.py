"""Training samples of a diffusers model: clips and captions through its encoders, then through its recipe."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

import torch
from torch import Tensor

from vdsgen.model.data.clips import ClipReader
from vdsgen.model.data.order import Draw, generator_for
from vdsgen.model.data.samples import MicroBatch, Preparation, Prepared
from vdsgen.model.recipes.draw import Drawn, draw
from vdsgen.spec.recipes.recipe import Recipe

CAPTIONS_IN_MEMORY = 256


class Encoders(Protocol):
    """What makes tensors of clips and captions, named as in `Recipe.cached`."""

    def encode_clip(self, clip: Tensor) -> dict[str, Tensor]: ...
    def encode_text(self, caption: str) -> dict[str, Tensor]: ...
    def decode(self, latents: Tensor) -> Tensor: ...


@dataclass(frozen=True, slots=True)
class RecipeSource:
    """A pure function from a sample's place in the run to the sample, in two halves, as `SampleSource` is."""

    reader: ClipReader
    encoders: Encoders
    recipe: Recipe
    seed: int
    captions: Sequence[str]
    """Of each clip of the index."""
    loads_in_threads: bool = False
    _known: dict[str, dict[str, Tensor]] = field(default_factory=dict, repr=False)

    @property
    def preparation(self) -> Preparation:
        """Loader workers decode; encoders have weights, and run in the training process."""
        return Preparation(self.reader, None)

    def finish(self, prepared: Prepared) -> Drawn:
        tensors = self.encoders.encode_clip(prepared.clip.video)
        tensors |= self.text(self.captions[prepared.clip.position])
        generator = generator_for(self.seed, "objective", prepared.draw.sample)
        return draw(self.recipe, tensors, generator, empty=self.text(""))

    def sample(self, draw: Draw) -> Drawn:
        return self.finish(self.preparation.prepare(draw))

    def stacked(self, samples: Sequence[Drawn]) -> MicroBatch:
        return stacked(samples)

    def decode(self, latents: Tensor) -> Tensor:
        """(C, T', H', W') -> (3, T, H, W) float32, about [-1, 1], not clipped"""
        return self.encoders.decode(latents)

    def text(self, caption: str) -> dict[str, Tensor]:
        """A caption's tensors: each is encoded once."""
        if caption not in self._known:
            if len(self._known) >= CAPTIONS_IN_MEMORY:
                self._known.pop(next(iter(self._known)))
            self._known[caption] = {name: x.cpu() for name, x in self.encoders.encode_text(caption).items()}
        return dict(self._known[caption])

    def shown(self, sample: int) -> dict[str, Tensor]:
        """What a sample video is conditioned on: the clip of sample `sample` of the run, and its caption."""
        clip = self.reader.read(Draw.of_one_size(sample))
        return self.encoders.encode_clip(clip.video) | self.text(self.captions[clip.position])


def stacked(samples: Sequence[Drawn]) -> MicroBatch:
    """(the first layer's inputs, (targets, weights))"""
    inputs = tuple(torch.stack(column) for column in zip(*(one.inputs for one in samples), strict=True))
    targets, weights = [one.target for one in samples], [one.weight for one in samples]
    return inputs, (torch.stack(targets), torch.stack(weights))
