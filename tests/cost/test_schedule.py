"""The simulated pipeline against DeepSpeed's own instruction stream."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vdsgen.cost.schedule import (
    StageTimes,
    buffers_in_flight,
    makespan_lower_bound,
    micro_batch_at,
    simulate,
    stage_end_lower_bounds,
)

stage_times = st.builds(StageTimes, st.floats(0.01, 10), st.floats(0.01, 10))


def engine_instructions(stages: int, micro_batches: int) -> list[list[tuple[str, int]]]:
    """Each stage's (instruction, micro-batch) in the engine's order."""
    from deepspeed.runtime.pipe import schedule

    streams: list[list[tuple[str, int]]] = []
    for stage in range(stages):
        counts: dict[str, itertools.count[int]] = {}
        stream = []
        for commands in schedule.TrainSchedule(micro_batches=micro_batches, stages=stages, stage_id=stage):
            for command in commands:
                name = type(command).__name__
                # Every kind of instruction takes the micro-batches in order.
                stream.append((name, next(counts.setdefault(name, itertools.count()))))
        streams.append(stream)
    return streams


def run_engine_stream(
    stages: list[StageTimes], transfers: list[float], micro_batches: int
) -> tuple[list[float], list[int]]:
    """Run the engine's stream with rendezvous transfers; (end of each stage, most held micro-batches)."""
    streams = engine_instructions(len(stages), micro_batches)
    partner = {
        "SendActivation": ("RecvActivation", 1),
        "SendGrad": ("RecvGrad", -1),
        "RecvActivation": ("SendActivation", -1),
        "RecvGrad": ("SendGrad", 1),
    }
    clock, position = [0.0] * len(stages), [0] * len(stages)
    held, most = [0] * len(stages), [0] * len(stages)
    while any(position[s] < len(streams[s]) for s in range(len(stages))):
        moved = False
        for s, stream in enumerate(streams):
            if position[s] == len(stream):
                continue
            name, micro = stream[position[s]]
            if name in partner:
                other_name, direction = partner[name]
                other = s + direction
                if streams[other][position[other]] != (other_name, micro):
                    continue
                end = max(clock[s], clock[other]) + transfers[min(s, other)]
                clock[s] = clock[other] = end
                position[other] += 1
            elif name == "ForwardPass":
                clock[s] += stages[s].forward_seconds
                held[s] += 1
                most[s] = max(most[s], held[s])
            elif name == "BackwardPass":
                clock[s] += stages[s].backward_seconds
                held[s] -= 1
            position[s] += 1
            moved = True
        assert moved, "the engine's schedule deadlocks"
    return clock, most


@given(st.data())
@settings(max_examples=60, deadline=None)
def test_simulation_runs_as_the_engines_instruction_stream(data: st.DataObject) -> None:
    stages = data.draw(st.lists(stage_times, min_size=1, max_size=6))
    transfers = data.draw(st.lists(st.floats(0, 3), min_size=len(stages) - 1, max_size=len(stages) - 1))
    micro_batches = data.draw(st.integers(1, 12))
    ends, held = run_engine_stream(stages, transfers, micro_batches)
    run = simulate(stages, transfers, micro_batches)
    assert run.stage_end_seconds == pytest.approx(ends, rel=1e-9)
    assert held == [buffers_in_flight(s, len(stages), micro_batches) for s in range(len(stages))]
    assert makespan_lower_bound(stages, micro_batches) <= run.makespan_seconds * (1 + 1e-12)


@given(st.integers(1, 7), st.integers(1, 12))
@settings(max_examples=40, deadline=None)
def test_order_of_micro_batches_is_the_engines(stages: int, micro_batches: int) -> None:
    for stage, stream in enumerate(engine_instructions(stages, micro_batches)):
        ours = []
        for step in range(2 * (micro_batches + stages - 1)):
            micro, is_forward = micro_batch_at(step, stage, stages)
            if 0 <= micro < micro_batches:
                ours.append(("ForwardPass" if is_forward else "BackwardPass", micro))
        assert ours == [item for item in stream if item[0] in ("ForwardPass", "BackwardPass")]


@given(st.integers(1, 8), st.integers(1, 32), stage_times)
def test_equal_stages_give_the_textbook_bubble(stages: int, micro_batches: int, times: StageTimes) -> None:
    run = simulate([times] * stages, [0.0] * (stages - 1), micro_batches)
    assert run.bubble_fraction == pytest.approx((stages - 1) / (micro_batches + stages - 1), abs=1e-9)
    assert run.makespan_seconds == pytest.approx(makespan_lower_bound([times] * stages, micro_batches))


def test_one_stage_only_works() -> None:
    run = simulate([StageTimes(1.0, 2.0)], [], 5)
    assert run.stage_end_seconds == (15.0,)
    assert run.bubble_fraction == 0.0


def test_transfers_cost_time() -> None:
    stages = [StageTimes(1.0, 2.0)] * 2
    assert simulate(stages, [0.5], 4).makespan_seconds > simulate(stages, [0.0], 4).makespan_seconds


@given(
    stages=st.lists(stage_times, min_size=1, max_size=6),
    data=st.data(),
    micro_batches=st.sampled_from([1, 2, 5, 40, 200]),
)
@settings(max_examples=60, deadline=None)
def test_a_steady_pipeline_is_added_up_exactly(
    stages: list[StageTimes], data: st.DataObject, micro_batches: int
) -> None:
    """Every instruction of the engine's stream, beside what is simulated only until it repeats itself; and no
    stage ends before its bound."""
    transfers = data.draw(st.lists(st.floats(0, 2), min_size=len(stages) - 1, max_size=len(stages) - 1))
    ends, _ = run_engine_stream(stages, transfers, micro_batches)
    run = simulate(stages, transfers, micro_batches)
    assert list(run.stage_end_seconds) == pytest.approx(ends, rel=1e-9)
    bounds = stage_end_lower_bounds(stages, transfers, micro_batches)
    for (own, through), end in zip(bounds, ends, strict=True):
        assert own <= end * (1 + 1e-9)
        assert through <= max(ends) * (1 + 1e-9)
