"""diffusers' models cut into layers: the layers add up to the models, at any size."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.profile.small_models import SMALL, layer_order, real_model
from vdsgen.profile.families.build import trace_at
from vdsgen.profile.families.family import Training
from vdsgen.profile.families.registry import family_of
from vdsgen.profile.points import Point
from vdsgen.spec.architecture import Geometry
from vdsgen.spec.pretrained import PretrainedModel

WAYS = {
    "every weight": (Training(torch.float32), 0),
    "adapters": (Training(torch.float32, adapter_rank=3), 3),
}


def point_of(entry: PretrainedModel, batch: int, frames: int, rows: int, columns: int, text: int) -> Point:
    patch = entry.spatial_patch
    return Point(batch, Geometry(frames, rows * columns, text, rows * patch, columns * patch))


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", SMALL)
@given(
    batch=st.integers(2, 3),
    frames=st.integers(2, 5),
    rows=st.integers(2, 4),
    columns=st.integers(2, 5),
    text=st.integers(2, 9),
)
@settings(max_examples=4)
def test_layers_add_up_to_the_model_that_diffusers_runs(
    name: str, way: str, batch: int, frames: int, rows: int, columns: int, text: int
) -> None:
    entry, (training, rank) = SMALL[name], WAYS[way]
    point = point_of(entry, batch, frames, rows, columns, text)
    point = Point(point.batch, point.geometry, rank)
    forward, backward, _ = real_model(entry, training, point)
    traces = trace_at(family_of(entry.class_name), entry, training, point)
    order = [traces[kind][0] for kind in layer_order(entry)]
    held = sum(x.saved_bytes + x.side_bytes for x in order)
    print(name, way, forward.end, held, held+sum(x.output_bytes for x in order), forward.matmul_flops, sum(x.matmul_flops for x in order), backward.matmul_flops, sum(x.backward_matmul_flops for x in order))
