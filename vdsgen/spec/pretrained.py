"""Models of other libraries in the catalogue, and their layer profiles: traced, not yet trained."""

from __future__ import annotations

from math import prod
from typing import Any, ClassVar, Literal

from pydantic import Field

from vdsgen.spec.architecture import Geometry
from vdsgen.spec.base import PositiveInt, Spec, SpecWithOptions
from vdsgen.spec.profile import LayerCosts, LayerType, ModelProfile


class PretrainedModel(Spec):
    """A diffusers class and the configuration of one published model."""

    summary: str
    class_name: str
    """In diffusers."""
    config: dict[str, Any]
    """What the class is made with."""
    config_source: str
    published_parameters: PositiveInt | None
    """Exact count that somebody published; None: only rounded ones are known."""
    parameters_source: str
    temporal_factor: PositiveInt
    """Frames of video that become one latent frame (the first stands alone)."""
    spatial_factor: PositiveInt
    temporal_patch: PositiveInt = 1
    spatial_patch: PositiveInt
    text_tokens: PositiveInt
    """What the model's pipeline pads prompts to."""
    only_full_text: bool = False
    """The class takes no other length: it splits what it gets there."""

    def geometry(self, frames: int, height: int, width: int, *, text_tokens: int | None = None) -> Geometry:
        """A clip of pixels as the model's layers see it: T counts patches in time, S patches a frame.

        A clip's last frames that fill no latent frame are padded, as are latent frames that fill no patch.
        Raises ValueError for a length of text that the class does not take.
        """
        length = self.text_tokens if text_tokens is None else text_tokens
        if self.only_full_text and length != self.text_tokens:
            raise ValueError(f"{self.class_name} takes {self.text_tokens} text tokens here, not {length}")
        latent_frames = -(-(frames - 1) // self.temporal_factor) + 1
        rows = height // self.spatial_factor // self.spatial_patch
        columns = width // self.spatial_factor // self.spatial_patch
        return Geometry(
            frames=-(-latent_frames // self.temporal_patch),
            patches=rows * columns,
            text_tokens=length,
            latent_height=rows * self.spatial_patch,
            latent_width=columns * self.spatial_patch,
        )


class AdaptedLayer(SpecWithOptions):
    """One kind of layer where only low-rank adapters train; costs are polynomials of their rank R too."""

    written_where_set: ClassVar[frozenset[str]] = frozenset({"skips"})

    frozen_shapes: tuple[tuple[PositiveInt, ...], ...]
    adapters: tuple[tuple[PositiveInt, PositiveInt], ...]
    """(inputs, outputs) of each adapted linear layer, in the order the module registers them."""
    is_block: bool
    skips: Literal[-1, 0, 1] = 0
    """As of `LayerType`."""
    half: LayerCosts
    """Everything in two bytes."""
    single: LayerCosts
    mixed: LayerCosts
    """Frozen weights in bf16, adapters in fp32, under bf16 autocast."""

    def with_rank(self, rank: int) -> LayerType:
        """The layer with adapters of this rank: trainable shapes first, then frozen ones."""
        shapes = [shape for width, out in self.adapters for shape in ((rank, width), (out, rank))]
        trainable = sum(prod(shape) for shape in shapes)
        return LayerType(
            parameters=trainable + sum(prod(shape) for shape in self.frozen_shapes),
            trainable_parameters=trainable,
            parameter_shapes=(*shapes, *self.frozen_shapes),
            is_block=self.is_block,
            skips=self.skips,
            half=self.half.with_rank(rank),
            single=self.single.with_rank(rank),
            mixed=self.mixed.with_rank(rank),
        )


class PretrainedProfile(Spec):
    """What the catalogue keeps of a traced model: all weights trained, and adapters on frozen ones."""

    full: ModelProfile
    diffusers_version: str
    peft_version: str
    adapted: dict[str, AdaptedLayer] = Field(min_length=1)
    """By layer type, as in `full`."""

    def with_adapters(self, rank: int) -> ModelProfile:
        """The profile of training adapters of this rank."""
        types = {name: layer.with_rank(rank) for name, layer in self.adapted.items()}
        return self.full.model_copy(update={"layer_types": types})
