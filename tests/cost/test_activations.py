"""Predicted activations of the bundled model against the trainer's own engine, and properties of memory."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.cost.engine_cases import case_of, run_ranks
from vdsgen.cost.activations import LayerBytes, StageActivations, stage_activations
from vdsgen.cost.settings import Settings
from vdsgen.profile import ledger
from vdsgen.profile.trace import Kind, trace_layer
from vdsgen.spec.architecture import Geometry, Vdt

TOLERANCE = 0.1
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


CASES = [("fp32", 0), ("fp32", 1), ("fp32", 3), ("bf16", 3)]


def on_this_processor(dtype: torch.dtype) -> tuple[LayerBytes, ...]:
    """The model's layers traced at exactly this geometry, with the kernels that run here and not a GPU's."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ledger, "as_on_gpu", lambda _, result: result)
        patch.setattr(ledger, "hidden_temporary_bytes", lambda *_: 0)
        by_kind = {kind: _traced(kind, dtype) for kind in ("embed", "block", "final")}
    return (by_kind["embed"], *([by_kind["block"]] * MODEL.depth), by_kind["final"])


def _traced(kind: Kind, dtype: torch.dtype) -> LayerBytes:
    trace = trace_layer(MODEL, 2, GEOMETRY, kind, dtype)
    return LayerBytes(
        saved=trace.saved_bytes,
        output=trace.output_bytes,
        side=trace.side_bytes,
        forward_transient=max(0, *trace.forward_temporaries),
        backward_transient=max(0, *trace.backward_temporaries),
    )


def worker_case(settings: Settings) -> dict[str, Any]:
    case = case_of(settings)
    stages = settings.pipeline_parallel_size
    case["config"]["pipeline"] = {
        "stages": stages,
        "partition": list(PARTITIONS[stages]),
        "activation_checkpoint_interval": settings.activation_checkpoint_interval,
        "use_reentrant": False,
    }
    geometry = {name: getattr(GEOMETRY, name) for name in GEOMETRY.__dataclass_fields__}
    return {**case, "model": MODEL.model_dump(), "geometry": geometry}


@pytest.mark.slow
@pytest.mark.parametrize("stages", [1, 4])
def test_activations_are_within_ten_percent_of_the_trainers(
    stages: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Intervals 0, 1 and 3; 1, 2, 3 and 4 micro-batches in flight: peak of live tensors in a real step of the
    trainer's engine, less parameters, gradients and optimizer states."""
    cases = [settings_of(stages, interval, dtype) for dtype, interval in CASES]
    folder = tmp_path_factory.mktemp(f"stages{stages}")
    by_rank = run_ranks("activation_worker", stages, [worker_case(case) for case in cases], folder)
    in_flight = set()
    for index, (settings, (dtype, interval)) in enumerate(zip(cases, CASES, strict=True)):
        layers = on_this_processor(torch.float32 if dtype == "fp32" else torch.bfloat16)
        for answers in by_rank:
            stage = answers[index]["stage"]
            start, stop = PARTITIONS[stages][stage : stage + 2]
            predicted = stage_activations(layers, settings, stage, start, stop)
            in_flight.add(predicted.in_flight)
            real = answers[index]["peak"] - answers[index]["states"]
            place = f"{dtype}, interval {interval}, stage {stage} of {stages}"
            assert predicted.peak_bytes == pytest.approx(real, rel=TOLERANCE), place
    assert in_flight == set(range(1, stages + 1))


layer_strategy = st.builds(
    LayerBytes,
    saved=st.integers(0, 10**9),
    output=st.integers(1, 10**8),
    side=st.just(0),
    forward_transient=st.integers(0, 10**8),
    backward_transient=st.integers(0, 10**9),
)


@st.composite
def stages_of_layers(draw: st.DrawFn) -> tuple[list[LayerBytes], Settings, int, int, int]:
    """Layers, settings, and one stage with its layers."""
    block = draw(layer_strategy)
    embed = replace(draw(layer_strategy), side=draw(st.integers(0, 10**7)))
    layers = [embed, *[block] * draw(st.integers(1, 24)), draw(layer_strategy)]
    stages = draw(st.integers(1, 4))
    stage = draw(st.integers(0, stages - 1))
    start = 0 if stage == 0 else draw(st.integers(1, len(layers) - 1))
    stop = len(layers) if stage == stages - 1 else draw(st.integers(start + 1, len(layers)))
    settings = replace(
        settings_of(4, draw(st.integers(0, 9)), "fp32"),
        pipeline_parallel_size=stages,
        gradient_accumulation_steps=draw(st.integers(1, 16)),
    )
    return layers, settings, stage, start, stop


def activations(case: tuple[list[LayerBytes], Settings, int, int, int]) -> StageActivations:
    layers, settings, stage, start, stop = case
    return stage_activations(layers, settings, stage, start, stop)


@given(stages_of_layers())
def test_nothing_is_negative_and_parts_add_up(case: tuple[list[LayerBytes], Settings, int, int, int]) -> None:
    found = activations(case)
    assert min(found.in_flight, found.stash_bytes, found.backward_bytes, found.buffer_bytes) >= 0
    assert found.peak_bytes == (
        found.in_flight * found.stash_bytes + found.backward_bytes + found.buffer_bytes
    )


@given(stages_of_layers(), st.integers(2, 5))
def test_bigger_micro_batches_need_more(
    case: tuple[list[LayerBytes], Settings, int, int, int], times: int
) -> None:
    layers, settings, stage, start, stop = case
    bigger = [
        LayerBytes(**{name: times * getattr(layer, name) for name in LayerBytes.__dataclass_fields__})
        for layer in layers
    ]
    assert activations((bigger, settings, stage, start, stop)).peak_bytes >= activations(case).peak_bytes


@given(stages_of_layers(), st.integers(1, 16))
def test_more_accumulation_steps_never_need_less(
    case: tuple[list[LayerBytes], Settings, int, int, int], more: int
) -> None:
    layers, settings, stage, start, stop = case
    longer = replace(settings, gradient_accumulation_steps=settings.gradient_accumulation_steps + more)
    assert activations((layers, longer, stage, start, stop)).peak_bytes >= activations(case).peak_bytes


@given(stages_of_layers())
def test_checkpointing_stashes_no_more_than_it_would_without(
    case: tuple[list[LayerBytes], Settings, int, int, int],
) -> None:
    """Except the first stage's latents, whose clone a checkpointed segment keeps."""
    layers, settings, stage, start, stop = case
    plain = replace(settings, activation_checkpoint_interval=0)
    stash = activations((layers, plain, stage, start, stop)).stash_bytes
    assert activations(case).stash_bytes <= stash + layers[-1].output
