"""Which encoders an experiment's cache is made with, by the kind of its model."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from vdsgen.model.cache.bundled import CODE, MakeBundledEncoders, codec_fingerprint, hash_of_facts
from vdsgen.model.cache.encoders import Encoders, MakeEncoders, Part, Tensors
from vdsgen.model.data.condition import no_text_encoder
from vdsgen.model.latents import codec_for
from vdsgen.model.recipes.plain import PlainEncoders
from vdsgen.spec.architecture import Vdt
from vdsgen.spec.data import Data
from vdsgen.spec.diffusers_model import DiffusersModel
from vdsgen.spec.experiment import Experiment
from vdsgen.spec.recipes import trained_recipe
from vdsgen.spec.recipes.recipe import Recipe


def encoders_of(experiment: Experiment) -> MakeEncoders:
    """Of an experiment whose model is resolved. Raises VdsgenError where it says too little."""
    model, data = experiment.model, experiment.data
    if isinstance(model, Vdt):
        has_text = model.condition == "text"
        if has_text and data.text_encoder is None:
            raise no_text_encoder()
        return MakeBundledEncoders(data, has_text)
    assert isinstance(model, DiffusersModel), "the experiment's model has not been resolved"
    recipe = trained_recipe(model, experiment)
    if data.pipeline is None:
        return MakePlainEncoders(recipe, model.config, data)
    from vdsgen.model.recipes.encoders.family import MakeFamilyEncoders

    make: MakeEncoders = MakeFamilyEncoders(recipe, Path(data.pipeline))
    return make


@dataclass(frozen=True, slots=True)
class MakePlainEncoders:
    """Of a diffusers model without its pipeline (vdsgen.model.recipes.plain)."""

    recipe: Recipe
    config: Mapping[str, Any]
    data: Data

    def __call__(self, device: str) -> Encoders:
        return _Plain(self, device)


class _Plain:
    def __init__(self, made_of: MakePlainEncoders, device: str) -> None:
        self._of = made_of
        self._device = device

    def fingerprint(self, part: Part) -> str:
        if part == "clip":
            return codec_fingerprint(self._of.data)
        recipe = self._of.recipe
        if not recipe.text:
            return ""
        texts = [dataclasses.asdict(text) for text in recipe.text]
        config = {key: value for key, value in self._of.config.items() if isinstance(value, int)}
        return hash_of_facts(code=CODE, texts=texts, config=config, names=list(recipe.cached))

    def encode_clip(self, clip: torch.Tensor) -> Tensors:
        return self._encoders.encode_clip(clip)

    def encode_text(self, caption: str) -> Tensors:
        return self._encoders.encode_text(caption)

    @functools.cached_property
    def _encoders(self) -> PlainEncoders:
        of = self._of
        return PlainEncoders(of.recipe, of.config, codec_for(of.data, self._device))
