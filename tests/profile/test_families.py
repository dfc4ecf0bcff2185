"""diffusers' models cut into layers: the layers add up to the models, at any size."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.profile.small_models import SMALL, layer_order, real_model
from vdsgen.profile.families.build import Traces, trace_at
from vdsgen.profile.families.family import ENDS, Training
from vdsgen.profile.families.registry import family_of
from vdsgen.profile.points import Point
from vdsgen.profile.precision import FP32_NAMES, LOWER_NAMES, CudaAutocast
from vdsgen.profile.trace import Trace
from vdsgen.spec.architecture import Geometry
from vdsgen.spec.pretrained import PretrainedModel


def point_of(entry: PretrainedModel, batch: int, frames: int, rows: int, columns: int) -> Point:
    """With as many samples as are traced together, where that is one number."""
    batches = family_of(entry.class_name).batches
    batch = batches[0] if len(batches) == 1 else batch
    patch, text = entry.spatial_patch, entry.text_tokens
    return Point(batch, Geometry(frames, rows * columns, text, rows * patch, columns * patch))


def unread_bytes(entry: PretrainedModel, point: Point, traces: Mapping[str, Traces]) -> int:
    """What layers hand on and a model without stages drops: the last block's text, and sides that are not
    saved."""
    width: int = entry.config["num_attention_heads"] * entry.config["attention_head_dim"]
    streams = family_of(entry.class_name).states
    text = 4 * point.batch * point.geometry.text_tokens * width * (streams - 1)
    return text + traces["embed"][0].side_bytes


def held_bytes(layers: Sequence[Trace]) -> int:
    """From forward to backward, by layers one after the other without checkpoints: what a layer does not save
    of its input, such as what HunyuanVideo's single blocks only join into one tensor, dies."""
    return sum(x.saved_bytes - x.unsaved_input_bytes + x.output_bytes + x.side_bytes for x in layers)


REPEAT = frozenset({"latte", "svd", "mochi"})
"""Families whose layers each make for themselves what diffusers' model makes once for all of them:
conditioning of a clip, once a frame; rotary angles of learned frequencies."""


def repeated_flops(name: str, point: Point) -> int:
    """Of the products that make angles of Mochi's frequencies, positions (N, 3) x (3, H * F), in all blocks
    but one."""
    if name != "mochi":
        return 0
    entry = SMALL[name]
    half: int = entry.config["num_attention_heads"] * entry.config["attention_head_dim"] // 2
    blocks = sum(kind not in ENDS for kind in layer_order(entry))
    return (blocks - 1) * 2 * point.geometry.frames * point.geometry.patches * 3 * half


def check_held(
    name: str, held: int, real: int, point: Point, traces: Mapping[str, Traces], slack: float
) -> None:
    """What layers hold from forward to backward beside what the model's own forward left. That has made the
    tables that a stage makes once, some classes one a sample."""
    tables = point.batch * sum(trace.constant_bytes for trace, _ in traces.values())
    assert real <= held + tables
    if name not in REPEAT:
        assert held - unread_bytes(SMALL[name], point, traces) - slack <= real


@pytest.mark.parametrize("name", SMALL)
@given(
    batch=st.integers(2, 3),
    frames=st.integers(2, 5),
    rows=st.integers(2, 4),
    columns=st.integers(2, 5),
)
@settings(max_examples=2, deadline=None)
def test_layers_add_up_to_the_model_that_diffusers_runs(
    name: str, batch: int, frames: int, rows: int, columns: int
) -> None:
    """The model's own forward, real numbers, torch's own kernels; what layers hand on may die in it."""
    entry, training = SMALL[name], Training(torch.float32)
    frames = entry.config.get("video_length", frames)  # diffusers' Latte takes no other number
    point = point_of(entry, batch, frames, rows, columns)
    forward, backward = real_model(name, training, point)
    traces = trace_at(family_of(entry.class_name), entry, training, point)
    layers = [traces[kind][0] for kind in layer_order(entry)]
    again = repeated_flops(name, point)
    assert forward.matmul_flops + again == sum(x.matmul_flops for x in layers)
    assert forward.attention_flops == sum(x.attention_flops for x in layers)
    assert backward.matmul_flops + again == sum(x.backward_matmul_flops for x in layers)
    assert backward.attention_flops == sum(x.backward_attention_flops for x in layers)
    held = held_bytes(layers)
    check_held(name, held, forward.end, point, traces, 0)


@pytest.mark.parametrize("name", ["wan", "cogvideox", "ltx", "hunyuan video"])
def test_frozen_weights_save_no_inputs_and_multiply_once_in_backward(name: str) -> None:
    """As in the real model, where the first block alone does less: nothing before it trains."""
    entry, training = SMALL[name], Training(torch.float32, adapter_rank=3)
    point = replace(point_of(entry, 2, 3, 3, 4), rank=3)
    forward, backward = real_model(name, training, point)
    traces = trace_at(family_of(entry.class_name), entry, training, point)
    order = layer_order(entry)
    layers = [traces[kind][0] for kind in order]
    first = traces[order[1]][0]
    assert forward.matmul_flops == sum(x.matmul_flops for x in layers)
    assert forward.attention_flops == sum(x.attention_flops for x in layers)
    multiplied = sum(x.backward_matmul_flops for x in layers)
    assert multiplied - first.backward_matmul_flops < backward.matmul_flops <= multiplied
    held = held_bytes(layers)
    check_held(name, held, forward.end, point, traces, 0.15 * first.saved_bytes)
    full = trace_at(family_of(entry.class_name), entry, Training(torch.float32), replace(point, rank=0))
    assert first.saved_bytes < full[order[1]][0].saved_bytes


@pytest.mark.parametrize("name", ["wan", "latte"])
def test_a_micro_batch_of_one_costs_what_its_polynomials_say(name: str) -> None:
    """Profiles are traced with two samples and more: with one, layouts could be others. Of blocks."""
    entry = SMALL[name]

    def net(batch: int) -> dict[str, int]:
        traces = trace_at(
            family_of(entry.class_name),
            entry,
            Training(torch.bfloat16),
            point_of(entry, batch, entry.config.get("video_length", 3), 3, 4),
        )
        blocks = {kind: trace for kind, (trace, _) in traces.items() if kind not in ENDS}
        return {kind: held_bytes([trace]) for kind, trace in blocks.items()}

    one, two, three = (net(batch) for batch in (1, 2, 3))
    assert one == {kind: 2 * two[kind] - three[kind] for kind in one}


def test_inputs_that_are_only_copied_or_cast_die_when_the_layer_has_run() -> None:
    """Wan's blocks cast theirs to fp32, HunyuanVideo's single blocks join two, Latte's temporal blocks
    transpose theirs; the others save what they get."""
    found = {}
    for name in ("wan", "hunyuan video", "latte", "cogvideox"):
        entry = SMALL[name]
        point = point_of(entry, 1, entry.config.get("video_length", 3), 3, 4)
        traces = trace_at(family_of(entry.class_name), entry, Training(torch.bfloat16), point)
        for kind, (trace, _) in traces.items():
            if kind not in ENDS:
                found[name, kind] = trace.unsaved_input_bytes / trace.output_bytes
    assert found == {
        ("wan", "block"): 1,
        ("hunyuan video", "double"): 0,
        ("hunyuan video", "single"): 1,
        ("latte", "spatial"): 0,
        ("latte", "first_temporal"): 1,
        ("latte", "temporal"): 1,
        ("cogvideox", "block"): 0,
    }


def test_autocast_lists_are_pytorchs() -> None:
    """Of the installed release's header: what Python calls by other names, or never, is left out."""
    header = Path(torch.__file__).parent / "include" / "ATen" / "autocast_mode.h"
    text = header.read_text()
    for macro, ours in (("LOWER_PRECISION_FP", LOWER_NAMES), ("FP32", FP32_NAMES)):
        body = text.split(f"#define AT_FORALL_{macro}(_)")[1].split("#define")[0]
        body += text.split("#define AT_FORALL_FP32_SET_OPT_DTYPE(_)")[1].split("#define")[0] * (
            macro == "FP32"
        )
        theirs = set(re.findall(r"_\((\w+)", body))
        assert {name for name in ours.split() if not name.startswith("__")} - {"interpolate"} <= theirs


def test_autocast_casts_each_weight_once_and_computes_in_bf16() -> None:
    layer = torch.nn.Linear(4, 4)
    norm = torch.nn.LayerNorm(4)
    with CudaAutocast():
        first = layer(torch.ones(2, 4))
        second = layer(first)
        assert first.dtype == second.dtype == torch.bfloat16
        assert norm(second).dtype == torch.float32
    assert layer(torch.ones(2, 4)).dtype == torch.float32
    second.float().sum().backward()
    assert layer.weight.grad is not None and layer.weight.grad.dtype == torch.float32
