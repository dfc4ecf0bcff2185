"""Predicted activations of the bundled model against the trainer's own engine, and properties of memory."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.cost.activation_cases import (
    PARTITIONS,
    activation_settings,
    on_this_processor,
    settings_of,
)
from tests.cost.conftest import EngineRuns
from vdsgen.cost.activations import LayerBytes, StageActivations, stage_activations
from vdsgen.cost.settings import Settings

TOLERANCE = 0.1


@pytest.mark.slow
@pytest.mark.parametrize("stages", [1, 4])
def test_activations_are_within_ten_percent_of_the_trainers(stages: int, engine_runs: EngineRuns) -> None:
    """Intervals 0, 1 and 3; 1, 2, 3 and 4 micro-batches in flight: peak of live tensors in a real step of the
    trainer's engine, less parameters, gradients and optimizer states."""
    in_flight = set()
    for settings, answers in zip(activation_settings(stages), engine_runs(stages).activations, strict=True):
        layers = on_this_processor(torch.float32 if settings.dtype == "fp32" else torch.bfloat16)
        for answer in answers:
            stage = answer["stage"]
            start, stop = PARTITIONS[stages][stage : stage + 2]
            predicted = stage_activations(layers, settings, stage, start, stop)
            in_flight.add(predicted.in_flight)
            interval = settings.activation_checkpoint_interval
            place = f"{settings.dtype}, interval {interval}, stage {stage} of {stages}"
            real = answer["peak"] - answer["states"]
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
    embed = draw(layer_strategy)._replace(side=draw(st.integers(0, 10**7)))
    layers = [embed, *[block] * draw(st.integers(1, 24)), draw(layer_strategy)]
    stages = draw(st.integers(1, 4))
    stage = draw(st.integers(0, stages - 1))
    start = 0 if stage == 0 else draw(st.integers(1, len(layers) - 1))
    stop = len(layers) if stage == stages - 1 else draw(st.integers(start + 1, len(layers)))
    settings = settings_of(4, draw(st.integers(0, 9)), "fp32")._replace(
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
        LayerBytes(**{name: times * getattr(layer, name) for name in LayerBytes._fields}) for layer in layers
    ]
    assert activations((bigger, settings, stage, start, stop)).peak_bytes >= activations(case).peak_bytes


@given(stages_of_layers(), st.integers(1, 16))
def test_more_accumulation_steps_never_need_less(
    case: tuple[list[LayerBytes], Settings, int, int, int], more: int
) -> None:
    layers, settings, stage, start, stop = case
    longer = settings._replace(gradient_accumulation_steps=settings.gradient_accumulation_steps + more)
    assert activations((layers, longer, stage, start, stop)).peak_bytes >= activations(case).peak_bytes


@given(stages_of_layers())
def test_checkpointing_stashes_no_more_than_it_would_without(
    case: tuple[list[LayerBytes], Settings, int, int, int],
) -> None:
    """Except the first stage's latents, whose clone a checkpointed segment keeps."""
    layers, settings, stage, start, stop = case
    plain = settings._replace(activation_checkpoint_interval=0)
    stash = activations((layers, plain, stage, start, stop)).stash_bytes
    assert activations(case).stash_bytes <= stash + layers[-1].output
