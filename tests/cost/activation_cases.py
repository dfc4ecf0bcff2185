"""The bundled model in stages, as cases for ranks to measure, and its layers as this processor runs them."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from functools import cache
from typing import Any

import pytest
import torch

from tests.cost.engine_cases import case_of, sizes_of
from vdsgen.cost.gradients import gradient_growth
from vdsgen.cost.layer_bytes import LayerBytes
from vdsgen.cost.model_states import model_states
from vdsgen.cost.settings import Settings
from vdsgen.cost.stage_tensors import stage_tensors
from vdsgen.cost.timeline import StageTimeline
from vdsgen.model.activation_compression import Codec
from vdsgen.profile import ledger
from vdsgen.profile.trace import (
    Kind,
    empty_inputs,
    empty_layer,
    empty_tensors,
    trace_layer,
    traced_checkpointed,
    traced_packing,
)
from vdsgen.spec.architecture import Geometry, Vdt

MODEL = Vdt(
    in_channels=4,
    patch_size=2,
    hidden_size=64,
    depth=14,
    heads=4,
    mlp_hidden_size=256,
    condition="text",
    text_hidden_size=48,
)
GEOMETRY = Geometry(frames=5, patches=24, text_tokens=9, latent_height=8, latent_width=12)
KINDS: tuple[Kind, ...] = ("embed", "block", "final")
PARTITIONS = {1: (0, 16), 4: (0, 4, 8, 12, 16)}
"""Four layers a stage: in-flight micro-batches are 4, 3, 2 and 1."""


def settings_of(stages: int, interval: int, dtype: str) -> Settings:
    return Settings(
        pipeline_parallel_size=stages,
        data_parallel_size=1,
        zero_stage=0,
        micro_batch_size=2,
        # One more than are ever in flight: then a full pipeline runs backward beside full gradients.
        gradient_accumulation_steps=stages + 1,
        activation_checkpoint_interval=interval,
        dtype="fp32" if dtype == "fp32" else "bf16",
        gradient_accumulation_dtype="fp32" if dtype == "fp32" else "bf16",
        reduce_bucket_elements=10**6,
        allgather_bucket_elements=10**6,
    )


CASES = (("fp32", 0), ("fp32", 1), ("fp32", 3), ("bf16", 3))
"""Precision, and blocks a checkpoint segment."""
SHORT_CASES = ((0, 1), (1, 1), (1, 2), (3, 2))
"""Blocks a segment, and accumulation steps: too few to run on beside full gradients."""
PARTLY_CASES = ((1, 2, None, False), (2, 1, 1, False), (2, 1, 2, False), (1, 2, None, True), (1, 3, 1, True))
"""Blocks a segment, each stage's last layers that run plainly, steps, and whether activations are
offloaded."""
SELECTIVE_CASES = ((1, 0, 4, None), (1, 1, 3, None), (2, 0, 2, 1), (1, 1, 1, None))
"""Blocks a segment, each stage's last layers that run plainly, those before that keep their products, and
steps."""
PACKED_CASES = ((1, 0, 0), (2, 1, 0), (1, 1, 3))
"""Blocks a segment, plain layers and those that keep their products, with what is kept packed."""
OFFLOADED_CASES = ((1, 1), (1, None), (3, None))
"""The same with activations in host memory; None: the usual number of steps."""


def activation_settings(stages: int) -> list[Settings]:
    short = [
        settings_of(stages, interval, "fp32")._replace(gradient_accumulation_steps=steps)
        for interval, steps in SHORT_CASES
    ]
    offloaded = [
        settings_of(stages, interval, "fp32")._replace(
            gradient_accumulation_steps=steps or stages + 1, offload_activations=True
        )
        for interval, steps in OFFLOADED_CASES
    ]
    partly = [
        settings_of(stages, interval, "fp32")
        .with_interval(interval, plain)
        ._replace(gradient_accumulation_steps=steps or stages + 1, offload_activations=offload)
        for interval, plain, steps, offload in PARTLY_CASES
    ]
    selective = [
        settings_of(stages, interval, dtype)
        .with_interval(interval, plain, 4 * kept if stages == 1 else kept)
        ._replace(gradient_accumulation_steps=steps or stages + 1)
        for interval, plain, kept, steps in SELECTIVE_CASES
        for dtype in ("fp32", "bf16")[: 1 if steps else 2]
    ]
    usual = [settings_of(stages, interval, dtype) for dtype, interval in CASES]
    packed = [
        settings_of(stages, interval, "bf16")
        .with_interval(interval, plain, 4 * kept if stages == 1 else kept)
        ._replace(activation_compression="int8")
        for interval, plain, kept in PACKED_CASES
    ]
    return usual + short + offloaded + partly + selective + packed


@cache
def on_this_processor(dtype: torch.dtype, *, packed: bool = False) -> tuple[LayerBytes, ...]:
    """The model's layers traced at exactly this geometry, with the kernels that run here and not a GPU's."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ledger, "hidden_temporary_bytes", lambda *_: 0)
        by_kind = {kind: _traced(kind, dtype, packed=packed) for kind in KINDS}
    return (by_kind["embed"], *([by_kind["block"]] * MODEL.depth), by_kind["final"])


def _traced(kind: Kind, dtype: torch.dtype, *, packed: bool) -> LayerBytes:
    # Real tensors: this processor keeps the statistics of a layer norm in half precision, as no GPU does.
    trace = trace_layer(MODEL, 2, GEOMETRY, kind, dtype, tensors=nullcontext)
    layer = empty_layer(MODEL, GEOMETRY, kind, dtype)
    inputs = empty_inputs(MODEL, 2, GEOMETRY, kind, dtype)
    codec = Codec("int8") if packed else None
    packs = codec if kind != "embed" else None
    kept = traced_checkpointed(layer, inputs, selective=True, codec=packs)
    hidden = None if kind == "final" else layer(inputs)[0].detach()
    return LayerBytes(
        packed_output=traced_packing(hidden, codec).packed_bytes if codec and hidden is not None else 0,
        selective_saved=kept.saved_bytes,
        selective_recomputed=kept.recomputed_bytes,
        selective_forward_transient=max(0, *kept.forward_temporaries),
        selective_peak=max(0, *kept.moments),
        saved=trace.saved_bytes,
        output=trace.output_bytes,
        side=trace.side_bytes,
        forward_transient=max(0, *trace.forward_temporaries),
        backward_transient=max(0, *trace.backward_temporaries),
    )


def timeline_of(settings: Settings, stage: int, shapes: Sequence[Sequence[int]]) -> StageTimeline:
    """The predicted step of a stage whose parameters have these shapes, on this processor."""
    start, stop = PARTITIONS[settings.pipeline_parallel_size][stage : stage + 2]
    dtype = torch.float32 if settings.dtype == "fp32" else torch.bfloat16
    layers = on_this_processor(dtype, packed=settings.packs)
    tensors = stage_tensors(layers, settings, stage, start, stop)
    states = model_states(sizes_of(shapes), settings)
    growth = gradient_growth(states, settings, parameters_by_layer()[start:stop])
    return StageTimeline(tensors, states, growth, settings, stage, start)


@cache
def parameters_by_layer() -> tuple[int, ...]:
    counts = {}
    for kind in KINDS:
        with empty_tensors():
            layer = empty_layer(MODEL, GEOMETRY, kind, torch.float32)
        counts[kind] = sum(parameter.numel() for parameter in layer.parameters())
    return (counts["embed"], *([counts["block"]] * MODEL.depth), counts["final"])


def worker_case(settings: Settings) -> dict[str, Any]:
    case = case_of(settings)
    stages = settings.pipeline_parallel_size
    case["config"]["pipeline"] = {
        "stages": stages,
        "partition": list(PARTITIONS[stages]),
        "activation_checkpoint_interval": settings.activation_checkpoint_interval,
        "use_reentrant": False,
        "offload_activations": settings.offload_activations,
        "plain_layers": list(settings.stage_plain_layers),
        "selective_layers": list(settings.stage_selective_layers),
        "compress_activations": settings.activation_compression,
    }
    geometry = {name: getattr(GEOMETRY, name) for name in GEOMETRY._fields}
    return {**case, "model": MODEL.model_dump(), "geometry": geometry}
