"""What a model's first layer takes, and what pipeline stages hand on: shapes and dtypes, without contents."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from vdsgen.model.pipeline import Batch
from vdsgen.model.trained import DTYPES, trained
from vdsgen.profile.kernels import full_text
from vdsgen.profile.points import Point
from vdsgen.profile.trace import empty_inputs
from vdsgen.spec.architecture import Geometry, Vdt
from vdsgen.spec.diffusers_model import DiffusersModel
from vdsgen.spec.dtypes import Dtype
from vdsgen.spec.geometry import TrainedModel

HandedOn = tuple[tuple[torch.Size, torch.dtype], ...]
"""Shapes and dtypes of the tensors that a stage hands to the next."""


class Exchange(NamedTuple):
    """What one stage gets from the stage before it, and what it hands to the next; () where there is none."""

    received: HandedOn
    sent: HandedOn


def exchange_of(
    model: TrainedModel,
    geometry: Geometry,
    micro_batch_size: int,
    dtype: Dtype,
    partition: Sequence[int],
    stage: int,
) -> Exchange:
    """Of stage `stage`, whose layers are partition[stage] to partition[stage + 1] - 1."""
    if isinstance(model, Vdt):
        same = _of_block(model, geometry, micro_batch_size, dtype)
        return Exchange(same, same)
    at = _at_boundaries(model, geometry, micro_batch_size, dtype, partition[1:-1])
    nothing: HandedOn = ()
    between = [nothing, *at, nothing]
    return Exchange(between[stage], between[stage + 1])


def _of_block(model: Vdt, geometry: Geometry, micro_batch_size: int, dtype: Dtype) -> HandedOn:
    """All stages hand on what a block takes."""
    with torch.device("meta"):
        return _described(empty_inputs(model, micro_batch_size, geometry, "block", DTYPES[dtype]))


@torch.no_grad()
def _at_boundaries(
    model: DiffusersModel,
    geometry: Geometry,
    micro_batch_size: int,
    dtype: Dtype,
    boundaries: Sequence[int],
) -> list[HandedOn]:
    """What goes into each of these layers. The layers run once; adapters change no shape."""
    with torch.device("meta"), full_text():
        found = []
        tensors: Any = first_inputs(model, geometry, micro_batch_size)
        last = max(boundaries, default=0)
        for index, spec in enumerate(trained(model, geometry, seed=0, dtype=dtype).layers[:last]):
            tensors = spec.build()(tensors)
            if index + 1 in boundaries:
                found.append(_described(tensors))
        return found


def _described(tensors: Sequence[Tensor]) -> HandedOn:
    return tuple((tensor.shape, tensor.dtype) for tensor in tensors)


def first_inputs(model: TrainedModel, geometry: Geometry, micro_batch_size: int) -> tuple[Tensor, ...]:
    """What the loader gives, on the current device."""
    if isinstance(model, Vdt):
        return empty_inputs(model, micro_batch_size, geometry, "embed", torch.float32)
    from vdsgen.profile.families.registry import family_of

    family, point = family_of(model.class_name), Point(micro_batch_size, geometry)
    return tuple(x.float() if x.is_floating_point() else x for x in family.sample(model.config, point))


def empty_batch(model: TrainedModel, geometry: Geometry, micro_batch_size: int) -> Batch:
    """A micro-batch without contents."""
    inputs = first_inputs(model, geometry, micro_batch_size)
    if isinstance(model, Vdt):
        return inputs, torch.empty_like(inputs[0])
    batch, _, *clip = inputs[0].shape
    target = torch.empty(batch, model.recipe.autoencoder.channels, *clip)
    return inputs, (target, torch.empty(batch))
