"""The stream of instructions against DeepSpeed's own schedule."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from vdsgen.cost.instructions import instructions, pipeline_slots
from vdsgen.cost.schedule import buffers_in_flight


@st.composite
def places(draw: st.DrawFn) -> tuple[int, int, int]:
    """(stage, stages, micro-batches)"""
    stages = draw(st.integers(1, 12))
    return draw(st.integers(0, stages - 1)), stages, draw(st.integers(1, 40))


def engines_stream(stage: int, stages: int, micro_batches: int) -> list[tuple[str, int | None]]:
    """(instruction, slot) in order, as the engine would execute them."""
    from deepspeed.runtime.pipe.schedule import TrainSchedule

    schedule = TrainSchedule(micro_batches=micro_batches, stages=stages, stage_id=stage)
    return [
        (type(command).__name__, command.kwargs.get("buffer_id")) for step in schedule for command in step
    ]


@given(places())
def test_a_pipeline_runs_the_engines_instructions_in_its_slots(place: tuple[int, int, int]) -> None:
    stage, stages, micro_batches = place
    if stages == 1:
        return
    slots = max(2, pipeline_slots(stage, stages, micro_batches))
    ours = [
        (one.name, None if one.micro_batch is None else one.micro_batch % slots)
        for one in instructions(stage, stages, micro_batches)
    ]
    assert ours == engines_stream(stage, stages, micro_batches)


@given(st.integers(1, 20))
def test_one_process_accumulates_as_the_engines_own_example_does(micro_batches: int) -> None:
    from deepspeed.runtime.pipe.schedule import DataParallelSchedule

    schedule = DataParallelSchedule(micro_batches=micro_batches, stages=1, stage_id=0)
    engine = [type(command).__name__ for step in schedule for command in step]
    assert [one.name for one in instructions(0, 1, micro_batches)] == engine


@given(places())
def test_what_is_in_flight_follows_from_the_stream(place: tuple[int, int, int]) -> None:
    stage, stages, micro_batches = place
    alive: set[int] = set()
    most = 0
    for one in instructions(stage, stages, micro_batches):
        if one.name == "ForwardPass":
            assert one.micro_batch is not None
            alive.add(one.micro_batch)
            most = max(most, len(alive))
        if one.name == "BackwardPass":
            assert one.micro_batch is not None
            alive.remove(one.micro_batch)
    assert not alive
    assert most == buffers_in_flight(stage, stages, micro_batches)
    if stages > 1:
        from deepspeed.runtime.pipe.schedule import TrainSchedule

        reserved = TrainSchedule(
            micro_batches=micro_batches, stages=stages, stage_id=stage
        ).num_pipe_buffers()
        assert pipeline_slots(stage, stages, micro_batches) == min(reserved, micro_batches)
