"""Memory of a stage: its parts and their sum, what moves it, and what others measured."""

from __future__ import annotations

from functools import cache

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vdsgen.catalog.profiles import profile_for
from vdsgen.catalog.resolve import resolve_model
from vdsgen.cost.memory import (
    DEVICE_CONTEXT_BYTES,
    FRAGMENTATION_FRACTION,
    HOST_PROCESS_BYTES,
    MemoryModel,
    stage_memory,
)
from vdsgen.cost.model_states import model_states
from vdsgen.cost.schedule import buffers_in_flight
from vdsgen.cost.settings import Settings
from vdsgen.cost.stage_sizes import StageSizes
from vdsgen.spec.architecture import Geometry
from vdsgen.spec.profile import ModelProfile

GEOMETRY = Geometry(frames=16, patches=256, text_tokens=128, latent_height=32, latent_width=32)
CAPACITY_BYTES = 24 * 1024**3
SETTINGS = Settings(
    pipeline_parallel_size=2,
    data_parallel_size=2,
    zero_stage=0,
    micro_batch_size=1,
    gradient_accumulation_steps=4,
    activation_checkpoint_interval=3,
    dtype="fp16",
    gradient_accumulation_dtype="fp16",
    reduce_bucket_elements=50_000_000,
    allgather_bucket_elements=50_000_000,
)


@cache
def profile() -> ModelProfile:
    found = profile_for(resolve_model("vdt-1.5b"))
    assert found is not None
    return found


@cache
def model() -> MemoryModel:
    return MemoryModel(profile(), GEOMETRY)


@st.composite
def allowed(draw: st.DrawFn) -> Settings:
    settings = SETTINGS._replace(
        pipeline_parallel_size=draw(st.sampled_from([1, 2, 5])),
        data_parallel_size=draw(st.sampled_from([1, 2, 4])),
        zero_stage=draw(st.integers(0, 3)),
        micro_batch_size=draw(st.integers(1, 4)),
        gradient_accumulation_steps=draw(st.integers(1, 16)),
        activation_checkpoint_interval=draw(st.integers(0, 8)),
        dtype=draw(st.sampled_from(["fp32", "bf16", "fp16"])),
    )
    settings = settings.with_interval(settings.activation_checkpoint_interval, draw(st.integers(0, 12)))
    settings = settings._replace(gradient_accumulation_dtype=settings.dtype)
    if settings.zero_stage > 0 and draw(st.booleans()):
        settings = settings._replace(gradient_accumulation_dtype="fp32")
    if settings.zero_stage >= 2:
        settings = settings._replace(pipeline_parallel_size=1)
    return settings


def stages_of(settings: Settings) -> list[tuple[int, int, int]]:
    """(stage, start, stop) of equal stages."""
    count, layers = settings.pipeline_parallel_size, len(profile().layers)
    return [(stage, stage * layers // count, (stage + 1) * layers // count) for stage in range(count)]


@given(allowed())
def test_the_peak_is_the_documented_sum(settings: Settings) -> None:
    """Where micro-batches follow those in flight; else gradients and activations do not meet in full. Nor do
    ZeRO-2's gradients and buckets, which come after the first layers of a backward."""
    for stage, start, stop in stages_of(settings):
        memory = model().stage_memory(settings, stage, start, stop, CAPACITY_BYTES)
        held = memory.parameters_bytes + memory.gradients_bytes + memory.optimizer_bytes
        moment = max(memory.activations_bytes + memory.communication_bytes, memory.workspace_bytes)
        tensors = model().tensor_bytes(settings, stage, start, stop)
        assert memory.peak_bytes - memory.reserve_bytes == tensors
        in_flight = buffers_in_flight(
            stage, settings.pipeline_parallel_size, settings.gradient_accumulation_steps
        )
        if settings.gradient_accumulation_steps > in_flight and settings.zero_stage != 2:
            assert tensors == held + moment
        else:
            assert held + memory.workspace_bytes <= tensors <= held + moment


@given(allowed())
def test_the_timeline_peaks_at_what_is_planned(settings: Settings) -> None:
    for stage, start, stop in stages_of(settings):
        timeline = model().timeline(settings, stage, start, stop)
        planned = model().tensor_bytes(settings, stage, start, stop)
        assert timeline.peak().total_bytes == planned
        assert max(moment.total_bytes for moment in timeline.moments()) == planned


@given(allowed(), st.lists(st.sampled_from([8, 16, 24, 40]), min_size=1, max_size=4))
def test_of_several_sizes_the_one_that_needs_most_decides(settings: Settings, frames: list[int]) -> None:
    """A short clip of many patches beside long ones of few."""
    sizes = [GEOMETRY._replace(frames=count, patches=8192 // count) for count in frames]
    several = MemoryModel(profile(), sizes)
    alone = [MemoryModel(profile(), size) for size in sizes]
    for stage, start, stop in stages_of(settings):
        most = max(one.tensor_bytes(settings, stage, start, stop) for one in alone)
        assert several.tensor_bytes(settings, stage, start, stop) == most
        assert several.timeline(settings, stage, start, stop).peak().total_bytes == most


@given(allowed(), st.integers(1, 40))
def test_without_recomputation_plain_layers_never_need_less(settings: Settings, plain: int) -> None:
    """What the search bounds them by: no more than is needed, and rising where all others are one segment."""
    for stage, start, stop in stages_of(settings):
        bound = model().plain_tensor_bytes(settings, stage, start, stop)
        assert bound <= model().tensor_bytes(settings, stage, start, stop)
        layers = stop - start
        fewer, more = (
            model().plain_tensor_bytes(settings.with_interval(layers - count, count), stage, start, stop)
            for count in (min(plain, layers - 1) - 1, min(plain, layers - 1))
        )
        assert fewer <= more
        shortest = settings.with_interval(max(1, settings.activation_checkpoint_interval), plain % layers)
        one = settings.with_interval(layers - plain % layers, plain % layers)
        least = model().plain_tensor_bytes(one, stage, start, stop)
        assert least <= model().tensor_bytes(shortest, stage, start, stop)


@given(allowed())
def test_bigger_micro_batches_never_need_less(settings: Settings) -> None:
    bigger = settings._replace(micro_batch_size=settings.micro_batch_size + 1)
    for stage, start, stop in stages_of(settings):
        assert model().tensor_bytes(bigger, stage, start, stop) >= model().tensor_bytes(
            settings, stage, start, stop
        )


@given(allowed())
def test_more_data_ranks_need_no_more(settings: Settings) -> None:
    """From two on; one rank gathers nothing and keeps nothing whole besides."""
    if settings.data_parallel_size == 1:
        return
    wider = settings._replace(data_parallel_size=2 * settings.data_parallel_size)
    padding = 1_000_000
    for stage, start, stop in stages_of(settings):
        before = model().tensor_bytes(settings, stage, start, stop)
        assert model().tensor_bytes(wider, stage, start, stop) <= before + padding


def test_zero_stages_fall_in_states_at_four_ranks() -> None:
    """bf16 with bf16 sums: 16, then 7, then less, then least bytes a parameter."""
    layers = len(profile().layers)
    held = []
    for stage in range(4):
        settings = SETTINGS._replace(
            pipeline_parallel_size=1,
            data_parallel_size=4,
            zero_stage=stage,
            dtype="bf16",
            gradient_accumulation_dtype="bf16",
        )
        held.append(model().states(settings, 0, layers).held_bytes / profile().parameters)
    assert held[0] == pytest.approx(16, rel=1e-6)
    assert held[1] == pytest.approx(2 + 2 + 12 / 4, rel=1e-4)
    assert held == sorted(held, reverse=True)
    assert held[3] == pytest.approx((2 + 2 + 12) / 4, rel=0.01)


def test_the_function_asks_the_same_model() -> None:
    direct = stage_memory(profile(), GEOMETRY, SETTINGS, 1, range(25, 50), CAPACITY_BYTES)
    assert direct == model().stage_memory(SETTINGS, 1, 25, 50, CAPACITY_BYTES)


def test_the_reserve_is_the_labs_fraction_or_context_and_fragmentation() -> None:
    tensors = model().tensor_bytes(SETTINGS, 0, 0, 25)

    def reserve(fraction: float | None = None, *, on_host: bool = False) -> int:
        memory = model().stage_memory(SETTINGS, 0, 0, 25, CAPACITY_BYTES, fraction, on_host=on_host)
        return memory.reserve_bytes

    assert reserve(0.1) == round(0.1 * CAPACITY_BYTES)
    assert reserve(0.0) == 0
    assert reserve() == DEVICE_CONTEXT_BYTES + round(FRAGMENTATION_FRACTION * tensors)
    assert reserve(on_host=True) == HOST_PROCESS_BYTES + round(FRAGMENTATION_FRACTION * tensors)


MIB = 2**20
STEADY_MIB = 10837.4
PEAKS_MIB = (
    *(17461.9, 17189.9, 16917.9, 16645.9, 16373.9, 16101.9, 15829.9, 15557.9),
    *(15446.8, 15446.8, 15446.8, 15446.8, 15446.8, 15446.8),
)
"""Stages 1 to 14 of 16; max_allocated and steady allocated memory of a 52 B model on DeepSpeed's
PipelineModule: fp16, ZeRO-0, 4 layers a stage, 256 micro-batches, checkpoint every layer
(bigscience-workshop/bigscience@9e64ede, experiments/gpt2-meg-ds-3d/meg_ds_3d_gpt2_perf_n16-ds-on.out)."""
STASH_MIB = 272
"""What one micro-batch holds there: four segment inputs of 64 MiB, and one split over 4 tensor ranks."""


def test_a_published_pipelines_peaks_are_reproduced_stage_by_stage() -> None:
    """Every middle stage's peak is the larger of the activation peak, which falls by one stash a stage as
    fewer micro-batches are in flight, and the optimizer step's 20 bytes a parameter, met at stage 9."""
    elements = round(STEADY_MIB * MIB / 14)
    sizes = StageSizes(elements, elements, elements // 48, ((elements // 48, 48),))
    settings = SETTINGS._replace(pipeline_parallel_size=16, data_parallel_size=1)
    states = model_states(sizes, settings)
    floor = states.held_bytes + states.workspace_bytes
    assert floor == 20 * elements
    assert states.parameters_bytes + states.optimizer_bytes == 14 * elements

    in_flight = [buffers_in_flight(stage, stages=16, micro_batches=256) for stage in range(1, 15)]
    beside_stash = PEAKS_MIB[0] - in_flight[0] * STASH_MIB
    for stage, (held, measured) in enumerate(zip(in_flight, PEAKS_MIB, strict=True), start=1):
        running = beside_stash + held * STASH_MIB
        assert max(running, floor / MIB) == pytest.approx(measured, rel=0.003), f"stage {stage}"
    met = [held * STASH_MIB + beside_stash < floor / MIB for held in in_flight]
    assert met.index(True) + 1 == 9


def test_zero_3_needs_room_for_a_segment_that_is_larger_than_what_it_gathers() -> None:
    """Two bytes for each element of the largest segment beyond 1e8 live and 5e7 gathered ahead."""
    whole = SETTINGS._replace(
        pipeline_parallel_size=1,
        zero_stage=3,
        activation_checkpoint_interval=len(profile().layers),
        gradient_accumulation_steps=2,
    )
    layers = len(profile().layers)
    peak = model().timeline(whole, 0, 0, layers).peak()
    states = model().states(whole, 0, layers)
    beyond = 2 * (profile().parameters - 150_000_000)
    assert peak.communication_bytes == states.communication_bytes + beyond
    alone = whole._replace(data_parallel_size=1)
    peak = model().timeline(alone, 0, 0, layers).peak()
    assert peak.communication_bytes == model().states(alone, 0, layers).communication_bytes


def test_the_reserve_is_what_its_sources_measured() -> None:
    """NVIDIA/nccl issue 1685 on an H100; SimuMax's two pipelined runs on B200, reserved over allocated."""
    assert DEVICE_CONTEXT_BYTES == 1.06e9
    assert 1.059 <= 1 + FRAGMENTATION_FRACTION <= 1.065
    assert 300e6 < HOST_PROCESS_BYTES < 400e6
