"""The search against every candidate there is, and what it owes its users."""

from __future__ import annotations

from itertools import combinations, pairwise, product
from typing import Any

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from tests.planner.examples import GIB, pool, workload
from vdsgen.cost.memory import stage_memory
from vdsgen.cost.settings import Settings
from vdsgen.planner.demands import whole_pool_layouts
from vdsgen.planner.place import Placed
from vdsgen.planner.search import SIMPLER_WITHIN, Candidate, Search, search, settled
from vdsgen.planner.space import bucket_elements
from vdsgen.planner.workload import Workload
from vdsgen.spec.experiment import Dtype
from vdsgen.spec.plan import Offload


def run(on: Workload) -> Search:
    return search(on, whole_pool_layouts(on))


def every_candidate(on: Workload) -> list[Candidate]:
    """All that fit, by trying everything: no pruning, no memory of earlier answers, all partitions."""
    training, pins = on.experiment.training, on.experiment.constraints
    world, total, layers = on.pool.world_size, training.global_batch_size, on.layers
    bucket = bucket_elements(on)
    found = []
    for stages, data, zero, micro, steps, interval in product(
        range(1, world + 1), range(1, world + 1), range(4), range(1, total + 1), range(1, total + 1),
        range(layers + 1),
    ):  # fmt: skip
        accumulation: Dtype = "bf16" if zero == 0 else "fp32"
        if (
            stages * data != world
            or stages > on.blocks
            or micro * steps * data != total
            or (stages > 1 and zero > 1)
            or (accumulation == "bf16" and steps > 1)
            or interval > on.blocks
            or pins.pipeline_parallel_size not in (None, stages)
        ):
            continue
        asked = Settings(stages, data, zero, micro, steps, interval, "bf16", accumulation, bucket, bucket)
        for settings in everything_moved(asked):
            placed = fastest_that_fits(on, settings)
            if placed is not None:
                found.append(Candidate(placed, on.times.step(settings, placed.partition)))
    return found


def everything_moved(asked: Settings) -> list[Settings]:
    """All that a host with enough memory allows. Parameters alone in host memory are not searched."""
    places: list[tuple[Offload, Offload]] = [("none", "none")]
    places += [("cpu", "none")] if asked.zero_stage > 0 else []
    places += [("cpu", "cpu")] if asked.zero_stage == 3 else []
    return [
        asked._replace(
            offload_optimizer=optimizer, offload_parameters=parameters, offload_activations=activations
        )
        for (optimizer, parameters), activations in product(places, (False, True))
        if asked.activation_checkpoint_interval > 0 or not activations
    ]


def fastest_that_fits(on: Workload, settings: Settings) -> Placed | None:
    stages, layers = settings.pipeline_parallel_size, on.layers
    seconds = on.times.layer_seconds(settings)
    options = []
    for inner in combinations(range(1, layers), stages - 1):
        boundaries = (0, *inner, layers)
        spans = list(pairwise(boundaries))
        if not all(any(on.is_block[a:b]) for a, b in spans):
            continue
        peaks = [
            stage_memory(on.profile, on.geometry, settings, stage, range(a, b), on.capacity_bytes).peak_bytes
            for stage, (a, b) in enumerate(spans)
        ]
        if max(peaks) <= on.capacity_bytes:
            slowest = max(sum(seconds[a:b]) for a, b in spans)
            options.append((float(f"{slowest:.9e}"), boundaries, max(peaks)))
    if not options:
        return None
    _, boundaries, peak = min(options)
    return Placed(settings, boundaries, peak)


@given(
    blocks=st.integers(2, 5),
    gpus=st.sampled_from([1, 2, 4]),
    global_batch_size=st.sampled_from([4, 8]),
    memory_gib=st.floats(0.05, 2.0),
    hidden=st.sampled_from([256, 512]),
)
@hypothesis_settings(max_examples=25, deadline=None)
def test_no_candidate_beats_the_planners_choice(
    blocks: int, gpus: int, global_batch_size: int, memory_gib: float, hidden: int
) -> None:
    on = workload(blocks, hidden, on=pool(gpus, memory_gib), global_batch_size=global_batch_size)
    result, everything = run(on), every_candidate(on)
    assert bool(result.ranked) == bool(everything)
    if not everything:
        return
    fastest = min(one.time.step_seconds for one in everything)
    near = [one for one in everything if one.time.step_seconds <= fastest * (1 + SIMPLER_WITHIN)]
    simplest = min(near, key=lambda one: one.simplicity[:4])
    winner = result.ranked[0]
    assert winner.time.step_seconds <= fastest * (1 + SIMPLER_WITHIN) * (1 + 1e-9)
    assert winner.simplicity[:4] == simplest.simplicity[:4]
    # Of equally simple plans, the emptiest.
    alike = [one for one in near if one.simplicity[:4] == simplest.simplicity[:4]]
    assert winner.placed.peak_bytes <= min(one.placed.peak_bytes for one in alike) * 1.001


def test_every_candidate_is_counted_once() -> None:
    on = workload(8, 1024, on=pool(4, 6.0))
    result = run(on)
    counted = (
        result.feasible
        + result.inexact_sums
        + sum(tally.count for tally in result.refused.values())
        + sum(tally.count for tally in result.out_of_memory.values())
    )
    assert counted == result.candidates
    assert result.feasible == sum(tally.count for tally in result.fitting.values())
    assert result.feasible > 0
    assert sum(tally.count for tally in result.out_of_memory.values()) > 0


def test_leaving_candidates_untimed_does_not_change_the_winner() -> None:
    for memory in (4.0, 6.0, 24.0):
        on = workload(8, 1024, on=pool(8, memory), global_batch_size=32)
        layouts = whole_pool_layouts(on)
        quick, thorough = search(on, layouts), search(on, layouts, time_all=True)
        assert quick.ranked[0] == thorough.ranked[0]
        assert len(quick.ranked) < len(thorough.ranked)
        times = [one.time.step_seconds for one in thorough.ranked[1:]]
        assert times == sorted(times)


PINS: list[dict[str, Any]] = [
    {"pipeline_parallel_size": 2},
    {"data_parallel_size": 1},
    {"zero_stage": 3},
    {"zero_stage": 0},
    {"micro_batch_size": 2},
    {"gradient_accumulation_steps": 2},
    {"activation_checkpoint_interval": 3},
    {"activation_checkpoint_interval": 0},
    {
        "pipeline_parallel_size": 2,
        "zero_stage": 1,
        "activation_checkpoint_interval": 3,
        "micro_batch_size": 1,
    },
]


@pytest.mark.parametrize("pins", PINS, ids=str)
def test_pins_are_honoured(pins: dict[str, int]) -> None:
    result = run(workload(8, 512, constraints=pins))
    assert result.ranked
    for candidate in result.ranked:
        for key, value in pins.items():
            assert getattr(candidate.settings, key) == value


@given(
    gpus=st.sampled_from([1, 2, 3, 4, 6, 8]),
    global_batch_size=st.integers(1, 48),
    blocks=st.integers(1, 8),
)
@hypothesis_settings(max_examples=40, deadline=None)
def test_batches_are_exact_and_layers_are_shared_out(gpus: int, global_batch_size: int, blocks: int) -> None:
    on = workload(blocks, 256, on=pool(gpus), global_batch_size=global_batch_size)
    result = run(on)
    assert result.ranked
    for candidate in [*result.ranked, settled(on, result.ranked[0])]:
        settings, boundaries = candidate.settings, candidate.placed.partition
        assert (
            settings.micro_batch_size * settings.gradient_accumulation_steps * settings.data_parallel_size
            == global_batch_size
        )
        assert boundaries[0] == 0 and boundaries[-1] == on.layers
        assert all(any(on.is_block[a:b]) for a, b in pairwise(boundaries))
        assert len(boundaries) == settings.pipeline_parallel_size + 1
        for stage, (start, stop) in enumerate(pairwise(boundaries)):
            direct = stage_memory(
                on.profile, on.geometry, settings, stage, range(start, stop), on.capacity_bytes
            )
            assert on.memory(settings, stage, start, stop) == direct
            assert direct.peak_bytes <= on.capacity_bytes


def test_evening_out_memory_costs_no_time() -> None:
    on = workload(14, 1024, on=pool(4, 24.0), constraints={"pipeline_parallel_size": 4})
    winner = run(on).ranked[0]
    evened = settled(on, winner)
    assert evened.placed.peak_bytes <= winner.placed.peak_bytes
    slowest = [max(stage.busy_seconds for stage in one.time.stages) for one in (winner, evened)]
    assert slowest[1] <= slowest[0] * (1 + 1e-9)


def test_tighter_memory_never_makes_the_plan_faster() -> None:
    times = []
    for memory in (24.0, 10.0, 7.0, 5.0, 4.0):
        result = run(workload(12, 1024, on=pool(4, memory)))
        times.append(result.ranked[0].time.step_seconds if result.ranked else float("inf"))
    assert all(b >= a * (1 - SIMPLER_WITHIN) for a, b in pairwise(times))


def test_precision_follows_the_gpu() -> None:
    assert run(workload(4, 256)).ranked[0].settings.dtype == "bf16"
    assert run(workload(4, 256, on=pool(bf16=False))).ranked[0].settings.dtype == "fp16"
    assert run(workload(4, 256, precision="fp32")).ranked[0].settings.dtype == "fp32"


def test_bf16_sums_are_taken_only_where_asked_for_or_needed() -> None:
    on = workload(8, 1024)
    for candidate in run(on).ranked:
        settings = candidate.settings
        assert settings.gradient_accumulation_dtype == "fp32" or settings.gradient_accumulation_steps == 1
    pinned = run(workload(8, 1024, constraints={"zero_stage": 0, "gradient_accumulation_steps": 4}))
    assert pinned.ranked[0].settings.gradient_accumulation_dtype == "bf16"


def test_capacity_of_a_processor_is_a_share_of_its_host() -> None:
    on = workload(4, 256)
    gpu = on.pool.gpu
    assert not isinstance(gpu, str)
    shared = pool().model_copy(update={"gpu": gpu.model_copy(update={"memory_gib": None})})
    assert workload(4, 256, on=shared).capacity_bytes == 128 * GIB // 4
