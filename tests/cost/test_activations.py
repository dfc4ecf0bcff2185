"""The predicted step of the bundled model against the trainer's own engine, and properties of activations."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.cost.activation_cases import (
    PARTITIONS,
    activation_settings,
    on_this_processor,
    settings_of,
    timeline_of,
)
from tests.cost.conftest import EngineRuns
from vdsgen.cost.activations import StageActivations, stage_activations
from vdsgen.cost.engine_optimizer import engine_optimizer
from vdsgen.cost.gradients import GradientGrowth, gradient_growth
from vdsgen.cost.layer_bytes import LayerBytes
from vdsgen.cost.memory import peak_tensor_bytes
from vdsgen.cost.schedule import buffers_in_flight
from vdsgen.cost.settings import BYTES_PER_ELEMENT, Settings
from vdsgen.cost.stage_tensors import stage_tensors
from vdsgen.cost.state_bytes import ModelStates
from vdsgen.cost.timeline import StageTimeline
from vdsgen.spec.dtypes import Dtype

TOLERANCE = 0.03
PEAK_TOLERANCE = 0.01
AT_END = ("ReduceTiedGrads", "ReduceGrads", "OptimizerStep")


@pytest.mark.slow
@pytest.mark.parametrize("stages", [1, 4])
def test_the_step_holds_what_the_trainers_engine_holds(stages: int, engine_runs: EngineRuns) -> None:
    """The peak of live tensors in a real step of the trainer's engine, and that of each of its instructions:
    intervals 0, 1 and 3; 1, 2, 3 and 4 micro-batches in flight; pipelines that fill up and that do not."""
    in_flight = set()
    for settings, answers in zip(activation_settings(stages), engine_runs(stages).activations, strict=True):
        for answer in answers:
            stage = answer["stage"]
            place = f"{settings}, stage {stage}"
            predicted = predicted_instructions(settings, stage, answer["shapes"])
            real = measured_instructions(answer["instructions"])
            running = [key for key in predicted if key[1] is not None]
            in_flight.add(buffers_in_flight(stage, stages, settings.gradient_accumulation_steps))

            activations = max(predicted[key] for key in running) - answer["states"]
            assert activations == pytest.approx(answer["peak"] - answer["states"], rel=TOLERANCE), place
            # What packing takes at its own peak, scales and blocks among it, is counted to 1.2 %.
            within = TOLERANCE if settings.packs else PEAK_TOLERANCE
            assert max(predicted.values()) == pytest.approx(max(real.values()), rel=within), place
            assert answer["activations_on_host"] == predicted_on_host(settings, stage), place
            for key in real:
                if key[0] == "ForwardPass" and settings.activation_checkpoint_interval > 0:
                    # Its temporaries are unknown, and less than its recomputation's.
                    assert predicted[key] <= real[key] * (1 + TOLERANCE), f"{key}, {place}"
                    most = max(predicted[key] for key in running)
                    # Those of layers that run plainly are known, and may be the peak.
                    assert real[key] < most * (1 + TOLERANCE * any(settings.stage_plain_layers)), place
                elif key[0] == "OptimizerStep":
                    # Gloo's threads may let go of the all-reduce's copy a moment after it is done.
                    late = max(predicted[key], predicted.get(("ReduceGrads", None), 0))
                    assert real[key] <= late * (1 + TOLERANCE), f"{key}, {place}"
                    assert real[key] >= predicted[key] * (1 - TOLERANCE), f"{key}, {place}"
                else:
                    assert predicted[key] == pytest.approx(real[key], rel=TOLERANCE), f"{key}, {place}"
    assert in_flight == set(range(1, stages + 1))


def predicted_on_host(settings: Settings, stage: int) -> int:
    stages = settings.pipeline_parallel_size
    start, stop = PARTITIONS[stages][stage : stage + 2]
    layers = on_this_processor(torch.float32)
    return stage_activations(layers, settings, stage, start, stop).host_bytes


Key = tuple[str, int | None]
"""An instruction's name and its micro-batch, None at the end of a step."""


def predicted_instructions(settings: Settings, stage: int, shapes: list[list[int]]) -> dict[Key, int]:
    """The most bytes alive in each instruction."""
    found: dict[Key, int] = {}
    for moment in timeline_of(settings, stage, shapes).moments():
        key = (moment.instruction, moment.micro_batch)
        found[key] = max(found.get(key, 0), moment.total_bytes)
    return found


def measured_instructions(noted: list[tuple[str, int]]) -> dict[Key, int]:
    """The same as a rank noted it; of reductions the last, which is the one that reduces."""
    seen: Counter[str] = Counter()
    found: dict[Key, int] = {}
    for name, peak_bytes in noted:
        found[name, None if name in AT_END else seen[name]] = peak_bytes
        seen[name] += 1
    return found


@pytest.mark.slow
@pytest.mark.parametrize("stages", [1, 4])
def test_the_peak_is_where_the_engine_has_it(stages: int, engine_runs: EngineRuns) -> None:
    """The same instruction, and the same micro-batch unless a later one is as large."""
    for settings, answers in zip(activation_settings(stages), engine_runs(stages).activations, strict=True):
        if settings.dtype != "fp32":
            continue
        for answer in answers:
            peak = timeline_of(settings, answer["stage"], answer["shapes"]).peak()
            real = measured_instructions(answer["instructions"])
            most = max(real.values())
            assert real[peak.instruction, peak.micro_batch] > most * 0.99, f"{settings}, {answer['stage']}"


layer_strategy = st.builds(
    LayerBytes,
    saved=st.integers(0, 10**9),
    output=st.integers(1, 10**8),
    side=st.just(0),
    forward_transient=st.integers(0, 10**9),
    backward_transient=st.integers(0, 10**9),
    constant=st.integers(0, 10**8),
    waiting=st.just(0),
    selective_saved=st.integers(0, 10**9),
    selective_recomputed=st.integers(-(10**7), 10**9),
    selective_forward_transient=st.integers(0, 10**9),
    selective_peak=st.integers(0, 2 * 10**9),
    packed_output=st.integers(0, 10**8),
    unsaved_input=st.integers(0, 10**8),
    trains=st.booleans(),
).map(
    lambda layer: layer._replace(
        selective_saved=min(layer.saved, layer.selective_saved),
        packed_output=min(layer.output, layer.packed_output),
    )
)


ELSEWHERE: tuple[dict[str, Any], ...] = (
    {},
    {"offload_activations": True},
    {"activation_compression": "int8"},
)


@st.composite
def stages_of_layers(draw: st.DrawFn) -> tuple[list[LayerBytes], Settings, int, int, int]:
    """Layers, settings, and one stage with its layers."""
    block = draw(layer_strategy)
    embed = draw(layer_strategy)._replace(side=draw(st.integers(0, 10**7)))
    layers = [embed, *[block] * draw(st.integers(1, 24)), draw(layer_strategy)]
    # No layer leaves more than it is given, nor more than it saves in its place.
    before = [0, *(layer.output for layer in layers)]
    layers = [
        layer._replace(unsaved_input=min(layer.unsaved_input, given_bytes, layer.saved))
        for layer, given_bytes in zip(layers, before, strict=False)
    ]
    stages = draw(st.integers(1, 4))
    stage = draw(st.integers(0, stages - 1))
    is_last = stage == stages - 1
    start = 0 if stage == 0 else draw(st.integers(1, len(layers) - (1 if is_last else 2)))
    stop = len(layers) if is_last else draw(st.integers(start + 1, len(layers) - 1))
    # The engine refuses a stage that trains nothing.
    layers[stop - 1] = layers[stop - 1]._replace(trains=True)
    plain = draw(st.one_of(st.just(0), st.integers(0, stop - start)))
    selective = draw(st.one_of(st.just(0), st.integers(0, stop - start - plain)))
    settings = settings_of(4, draw(st.integers(0, 9)), "fp32")._replace(
        pipeline_parallel_size=stages,
        stage_plain_layers=(plain,) * stages if plain else (),
        stage_selective_layers=(selective,) * stages if selective else (),
        gradient_accumulation_steps=draw(st.integers(1, 16)),
        **dict(draw(st.sampled_from(ELSEWHERE))),
    )
    return layers, settings, stage, start, stop


def activations(case: tuple[list[LayerBytes], Settings, int, int, int]) -> StageActivations:
    layers, settings, stage, start, stop = case
    return stage_activations(layers, settings, stage, start, stop)


@given(stages_of_layers())
def test_nothing_is_negative_and_parts_add_up(case: tuple[list[LayerBytes], Settings, int, int, int]) -> None:
    found = activations(case)
    assert min(found) >= 0
    before = (found.in_flight - 1) * found.stash_bytes + found.buffer_bytes
    assert found.peak_bytes == before + max(found.stash_bytes + found.backward_bytes, found.forward_bytes)


@st.composite
def steps(draw: st.DrawFn) -> tuple[StageActivations, ModelStates, GradientGrowth, Settings, StageTimeline]:
    """A stage of any layers under any states, as the formula and as the timeline see it."""
    layers, settings, stage, start, stop = draw(stages_of_layers())
    zero_stage = draw(st.sampled_from([0, 1] if settings.pipeline_parallel_size > 1 else [0, 1, 2, 3]))
    half = draw(st.booleans())
    sums: Dtype = "fp32" if not half or (zero_stage and draw(st.booleans())) else "bf16"
    settings = settings._replace(
        zero_stage=zero_stage,
        data_parallel_size=draw(st.integers(1, 2)),
        dtype="bf16" if half else "fp32",
        gradient_accumulation_dtype=sums,
    )
    trainable = [draw(st.integers(0, 10**8)) if layer.trains else 0 for layer in layers[start:stop]]
    own = sum(trainable) * BYTES_PER_ELEMENT[sums]
    buffered = engine_optimizer(settings) == "BF16_Optimizer"
    amounts = st.integers(0, 10**9)
    reduction, step = draw(amounts), draw(amounts)
    states = ModelStates(
        parameters_bytes=draw(amounts),
        gradients_bytes=draw(amounts) if zero_stage >= 2 or buffered else own,
        optimizer_bytes=draw(amounts),
        communication_bytes=draw(amounts),
        reduction_bytes=reduction,
        step_bytes=step,
    )
    parameters = [count + draw(st.integers(0, 10**8)) for count in trainable]
    growth = gradient_growth(states, settings, trainable, parameters)
    found = stage_activations(layers, settings, stage, start, stop, growth=growth)
    tensors = stage_tensors(layers, settings, stage, start, stop)
    return found, states, growth, settings, StageTimeline(tensors, states, growth, settings, stage, start)


@given(steps())
def test_the_formula_is_the_timelines_maximum(
    case: tuple[StageActivations, ModelStates, GradientGrowth, Settings, StageTimeline],
) -> None:
    found, states, growth, settings, timeline = case
    moments = list(timeline.moments())
    assert min(min(moment.components().values()) for moment in moments) >= 0
    largest = max(moments, key=lambda moment: moment.total_bytes)
    assert peak_tensor_bytes(states, growth, found, settings) == largest.total_bytes
    assert timeline.peak() == largest


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
    """Except the first stage's latents, whose clone a checkpointed segment keeps, and inputs that die where
    no checkpoint keeps them."""
    layers, settings, stage, start, stop = case
    plain = settings._replace(activation_checkpoint_interval=0)
    stash = activations((layers, plain, stage, start, stop)).stash_bytes
    died = sum(layer.unsaved_input for layer in layers[start:stop])
    assert activations(case).stash_bytes <= stash + layers[-1].output + died


@given(stages_of_layers())
def test_what_leaves_the_device_is_what_the_host_gets(
    case: tuple[list[LayerBytes], Settings, int, int, int],
) -> None:
    layers, settings, stage, start, stop = case
    settings = settings._replace(activation_compression="none")
    kept = activations((layers, settings._replace(offload_activations=False), stage, start, stop))
    offloaded = activations((layers, settings._replace(offload_activations=True), stage, start, stop))
    assert kept.host_bytes == 0
    left = kept.in_flight * (kept.stash_bytes - offloaded.stash_bytes)
    assert left == offloaded.host_bytes
    assert (left > 0) or settings.whole_layers(stage, stop - start) == 0 or start == 0


def test_an_offloaded_step_by_hand() -> None:
    """A stage of four layers, each a segment, that puts 10 out, but the last 3: latents of 3 stay, its
    inputs of 10 go, all but the first's. Forward holds one input and output; backward two inputs and what it
    recomputes, beside the gradient of its output."""
    layer = LayerBytes(saved=100, output=10, side=0, forward_transient=0, backward_transient=0)
    layers = [layer, layer, layer, layer._replace(output=3)]
    settings = settings_of(1, 1, "fp32")._replace(gradient_accumulation_steps=1, offload_activations=True)
    found = stage_activations(layers, settings, 0, 0, 4)
    assert (found.stash_bytes, found.host_bytes) == (3, 30)
    assert found.forward_bytes == 20
    assert found.backward_bytes == 10 + 10 + 110 + 10
    middle = stage_activations([*layers, layer], settings._replace(pipeline_parallel_size=3), 1, 1, 4)
    # Received twice, less a copy of the hidden state; the last output stays to be sent.
    assert (middle.stash_bytes, middle.host_bytes) == (20 - 10 + 3, 30)


def test_plain_layers_hold_no_inputs_that_nobody_saves() -> None:
    """Three layers of 100 saved and 10 put out, which save nothing of their inputs, in the second of three
    stages. The stage holds what it received and not its clone, which is there all through the forward."""
    layer = LayerBytes(
        saved=100, output=10, side=0, forward_transient=5, backward_transient=20, unsaved_input=10
    )
    settings = settings_of(3, 0, "fp32")._replace(gradient_accumulation_steps=1)
    found = stage_activations([layer] * 5, settings, 1, 1, 4)
    assert found.stash_bytes == 10 + 3 * 100 + 10
    # The last layer, beside its input and the clone of the first one's.
    assert found.forward_bytes == 10 + (3 * 100 + 10) + 5 + 10 + 10
    # Of the last layer's backward, the gradient that arrives lies in the receive buffers.
    assert found.backward_bytes == 20 - 10
    # Its input as a checkpoint's is kept.
    whole = settings._replace(activation_checkpoint_interval=3)
    assert stage_activations([layer] * 5, whole, 1, 1, 4).stash_bytes == 2 * 10 + 10
    # Recomputing all three, only the last one's input is there, while it runs.
    assert stage_activations([layer] * 5, whole, 1, 1, 4).backward_bytes == 3 * 100 + 10 + 5 + 10


def test_segments_that_no_backward_comes_to_keep_nothing() -> None:
    """Six layers that put 10 out, of which the first two do not train: the third's input is kept for it,
    though it needs no gradient, and leaves like the later ones'."""
    frozen = LayerBytes(saved=0, output=10, side=0, forward_transient=0, backward_transient=0, trains=False)
    layer = frozen._replace(saved=100, trains=True)
    layers = [frozen, frozen, layer, layer, layer, layer._replace(output=3)]
    settings = settings_of(1, 1, "fp32")._replace(gradient_accumulation_steps=1)
    kept = stage_activations(layers, settings, 0, 0, 6)
    assert (kept.stash_bytes, kept.host_bytes) == (4 * 10 + 3, 0)
    away = stage_activations(layers, settings._replace(offload_activations=True), 0, 0, 6)
    assert (away.stash_bytes, away.host_bytes) == (3, 4 * 10)
    # The first layer trains: every segment's input is kept, but the latents.
    trained = stage_activations([layer, *layers[1:]], settings._replace(offload_activations=True), 0, 0, 6)
    assert trained.host_bytes == 5 * 10
    # What a later stage receives needs a gradient.
    later = stage_activations(
        [layer, *layers], settings._replace(pipeline_parallel_size=2, offload_activations=True), 1, 1, 7
    )
    assert later.host_bytes == 6 * 10
    # Without checkpoints the frozen layers' hidden states die as they run.
    plain = stage_activations(layers, settings._replace(activation_checkpoint_interval=0), 0, 0, 6)
    assert plain.stash_bytes == 4 * 100 + 4 * 10 + 3


def test_after_backward_a_middle_stage_holds_what_it_received_with_its_gradient() -> None:
    """Layers that save nothing, and gradients larger than all else: buffer, clone received, its gradient."""
    layers = [LayerBytes(saved=0, output=100, side=0, forward_transient=0, backward_transient=0)] * 6
    settings = settings_of(3, 1, "fp32")._replace(gradient_accumulation_steps=1)
    states = ModelStates(
        parameters_bytes=7,
        gradients_bytes=4 * 2000,
        optimizer_bytes=11,
        communication_bytes=0,
        reduction_bytes=0,
        step_bytes=0,
    )
    growth = gradient_growth(states, settings, [1000, 1000])
    found = stage_activations(layers, settings, 1, 2, 4, growth=growth)
    timeline = StageTimeline(stage_tensors(layers, settings, 1, 2, 4), states, growth, settings, 1, 2)
    peak = timeline.peak()
    assert (peak.instruction, peak.layer) == ("BackwardPass", None)
    assert peak.total_bytes == 7 + 11 + 8000 + 100 + 2 * 100
    assert peak_tensor_bytes(states, growth, found, settings) == peak.total_bytes


@pytest.mark.parametrize(("zero_stage", "gathered"), [(2, 0), (3, 50)])
def test_forward_gathers_under_zero_3_alone(zero_stage: int, gathered: int) -> None:
    """A forward that decides: what is communicated is beside it only where parameters are gathered."""
    layers = [LayerBytes(saved=0, output=10, side=0, forward_transient=9000, backward_transient=0)] * 3
    settings = settings_of(1, 0, "fp32")._replace(zero_stage=zero_stage, gradient_accumulation_steps=1)
    states = ModelStates(
        parameters_bytes=7,
        gradients_bytes=40,
        optimizer_bytes=11,
        communication_bytes=50,
        reduction_bytes=0,
        step_bytes=0,
    )
    growth = gradient_growth(states, settings, [3, 4, 3])
    found = stage_activations(layers, settings, 0, 0, 3, growth=growth)
    timeline = StageTimeline(stage_tensors(layers, settings, 0, 0, 3), states, growth, settings, 0, 0)
    peak = timeline.peak()
    assert (peak.instruction, peak.layer, peak.communication_bytes) == ("ForwardPass", 2, gathered)
    assert peak_tensor_bytes(states, growth, found, settings) == peak.total_bytes
