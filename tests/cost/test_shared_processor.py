"""Ranks on shared cores: the schedule of schedule.simulate, and no core idle while a rank could use it."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.planner.examples import pool
from vdsgen.cost.schedule import StageTimes, simulate
from vdsgen.cost.shared_processor import Sharing, simulate_shared
from vdsgen.spec.calibration import Calibration
from vdsgen.spec.lab import Gpu, Pool

stage_lists = st.lists(
    st.builds(StageTimes, st.floats(0.01, 10), st.floats(0.01, 10)), min_size=1, max_size=5
)


@given(st.data(), stage_lists, st.integers(1, 8))
@settings(max_examples=60, deadline=None)
def test_with_a_core_for_each_rank_it_is_the_plain_schedule(
    data: st.DataObject, stages: list[StageTimes], micro_batches: int
) -> None:
    count = len(stages) - 1
    transfers = data.draw(st.lists(st.floats(0, 3), min_size=count, max_size=count))
    cores = 3 * len(stages)
    shared = simulate_shared(stages, transfers, micro_batches, Sharing(cores, measured_with=cores), 3)
    plain = simulate(stages, transfers, micro_batches)
    assert shared.stage_end_seconds == pytest.approx(plain.stage_end_seconds)
    assert shared.busy_seconds == pytest.approx(plain.busy_seconds)


@given(stage_lists, st.integers(1, 8), st.integers(1, 4))
@settings(max_examples=60, deadline=None)
def test_one_core_is_never_idle(stages: list[StageTimes], micro_batches: int, ranks: int) -> None:
    free = [0.0] * (len(stages) - 1)
    run = simulate_shared(stages, free, micro_batches, Sharing(1), ranks)
    work = ranks * micro_batches * sum(stage.busy_seconds for stage in stages)
    assert run.makespan_seconds == pytest.approx(work)
    assert run.bubble_fraction == pytest.approx(0.0, abs=1e-9)


@given(stage_lists, st.integers(1, 8), st.integers(1, 4), st.integers(1, 8))
@settings(max_examples=60, deadline=None)
def test_no_schedule_beats_all_cores_or_the_longest_chain(
    stages: list[StageTimes], micro_batches: int, ranks: int, cores: int
) -> None:
    free = [0.0] * (len(stages) - 1)
    run = simulate_shared(stages, free, micro_batches, Sharing(cores, measured_with=cores), ranks)
    work = ranks * micro_batches * sum(stage.busy_seconds for stage in stages)
    plain = simulate(stages, free, micro_batches).makespan_seconds
    assert run.makespan_seconds >= max(work / cores, plain) * (1 - 1e-9)
    assert run.makespan_seconds <= max(work, plain) * (1 + 1e-9)


def test_a_bubble_costs_little_where_ranks_outnumber_cores() -> None:
    stages, free = [StageTimes(1.0, 2.0)] * 4, [0.0] * 3
    own = simulate_shared(stages, free, 4, Sharing(4, measured_with=4), 1)
    shared = simulate_shared(stages, free, 4, Sharing(2, measured_with=2), 1)
    assert own.bubble_fraction == pytest.approx(3 / 7)
    assert shared.bubble_fraction < 0.2


def test_speeds_are_relative_to_the_ranks_that_were_measured() -> None:
    assert Sharing(2, measured_with=2).speed(4) == 0.5
    assert Sharing(2, measured_with=4).speed(4) == 1.0
    assert Sharing(2, measured_with=4).speed(1) == 2.0
    faster_alone = Sharing(2, alone_speedup=1.4, measured_with=2)
    assert faster_alone.speed(1) == pytest.approx(1.4)
    assert faster_alone.speed(2) == 1.0


def test_ranks_that_take_turns_cost_more() -> None:
    crowded = Sharing(2, measured_with=2, crowded_slowdown=1.1)
    assert crowded.speed(2) == 1.0
    assert crowded.speed(4) == pytest.approx(0.5 / 1.1)
    stages, free = [StageTimes(1.0, 2.0)] * 2, [0.0]
    usual = simulate_shared(stages, free, 4, Sharing(2, measured_with=2), 2).makespan_seconds
    assert usual < simulate_shared(stages, free, 4, crowded, 2).makespan_seconds <= usual * 1.1


@given(st.integers(1, 64), st.floats(0.5, 9.0), st.integers(1, 99), st.integers(1, 99))
def test_more_ranks_never_do_less_together(cores: int, alone: float, busy: int, measured: int) -> None:
    on = processor(cores, Calibration(alone_speedup=alone, busy_ranks=measured))
    sharing = Sharing.of(on)
    assert sharing is not None
    assert (busy + 1) * sharing.speed(busy + 1) >= busy * sharing.speed(busy) * (1 - 1e-9)
    assert sharing.speed(busy + 1) <= sharing.speed(busy) * (1 + 1e-9)


def test_only_processors_are_shared() -> None:
    assert Sharing.of(pool()) is None
    assert Sharing.of(processor(None, None)) is None
    assert Sharing.of(processor(2, None)) == Sharing(2, 1.0, 2)
    assert Sharing.of(processor(2, Calibration())) == Sharing(2, 1.0, 4)


def processor(cores: int | None, calibration: Calibration | None) -> Pool:
    gpu = Gpu(fp32_tflops=0.1, memory_bandwidth_gb_per_second=20.0)
    return pool().model_copy(update={"gpu": gpu, "cpu_cores": cores, "calibration": calibration})
