"""Hangs are found in time and blamed on the right rank."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vdsgen.launch.hang import (
    FIRST_SECONDS,
    LEAST_SECONDS,
    SILENT,
    STATES,
    Hang,
    HangWatch,
    Suspect,
    all_stopped,
    suspects_of,
)
from vdsgen.spec.heartbeat import Beat


def beat(rank: int, **changes: Any) -> Beat:
    """In step 12, with steps that took half a second and a checkpoint that took nine."""
    values: dict[str, Any] = {
        "rank": rank,
        "pid": 100 + rank,
        "host": "bee",
        "launch": "id",
        "tick": 1,
        "phase": "step",
        "begun": 50,
        "step": 12,
        "activity": "reduce",
        "changes": 3,
        "longest_seconds": {"step": 0.5, "saving a checkpoint": 9.0},
    }
    return Beat(**(values | changes))


def beats(*changed: Beat, ranks: int = 4) -> dict[int, Beat]:
    return {rank: beat(rank) for rank in range(ranks)} | {one.rank: one for one in changed}


@pytest.mark.parametrize(
    ("now", "seconds"),
    [
        ({}, LEAST_SECONDS),
        ({"longest_seconds": {"step": 30.0}}, 300.0),
        ({"longest_seconds": {}}, FIRST_SECONDS),
        ({"phase": "saving a checkpoint"}, 90.0),
        ({"phase": "sampling a video"}, FIRST_SECONDS),
        ({"phase": "done"}, FIRST_SECONDS),
    ],
    ids=str,
)
def test_the_limit_follows_from_what_took_how_long(now: dict[str, Any], seconds: float) -> None:
    assert HangWatch(4).limit_seconds(beats(beat(2, **now))) == seconds


def test_what_was_asked_for_is_exact_in_steps_and_the_least_elsewhere() -> None:
    watch = HangWatch(4, 20.0)
    assert watch.limit_seconds(beats()) == 20
    assert (
        watch.limit_seconds({r: replace(b, longest_seconds={"step": 99.0}) for r, b in beats().items()}) == 20
    )
    assert watch.limit_seconds(beats(beat(0, phase="saving a checkpoint"))) == 90
    assert watch.limit_seconds({}) == FIRST_SECONDS


def test_ranks_that_have_not_shown_themselves_may_take_long() -> None:
    assert HangWatch(5).limit_seconds(beats()) == FIRST_SECONDS


def test_any_rank_that_comes_on_ends_the_silence_and_a_mere_beat_does_not() -> None:
    watch = HangWatch(4)
    assert watch.silent_seconds(10) == 0
    watch.see(beats(), 10)
    watch.see(beats(beat(1, tick=2)), 40)
    assert watch.silent_seconds(40) == 30
    assert watch.still(beats(beat(1, tick=2)), 40) == {0, 2, 3}
    watch.see(beats(beat(1, tick=3, changes=4)), 41)
    assert watch.silent_seconds(45) == 4
    watch.forgive(60)
    assert watch.silent_seconds(61) == 1


def why(*changed: Beat, states: dict[int, str] | None = None, still: tuple[int, ...] = ()) -> dict[int, str]:
    return {found.beat.rank: found.why for found in suspects_of(beats(*changed), states or {}, still)}


def test_a_stopped_process_is_certain() -> None:
    behind = beat(3, begun=49)
    assert why(behind, states={0: "S", 1: "R", 2: "T", 3: "S"}, still=(2,)) == {2: STATES["T"]}
    assert why(states={1: "D"}) == {1: STATES["D"]}


def test_a_rank_that_does_not_beat_is_suspected_where_others_do() -> None:
    assert why(still=(1,)) == {1: SILENT}
    assert why(still=(0, 1, 2, 3)) == {}


def test_the_rank_that_is_behind_is_suspected() -> None:
    found = why(beat(2, begun=49, phase="between steps", activity=""))
    assert list(found) == [2]
    assert found[2] == "has not come to where others wait (step 12 (gradients between ranks))"


def test_the_rank_that_computes_where_all_others_wait_is_suspected() -> None:
    assert list(why(beat(1, activity="forward"))) == [1]
    assert why(*(beat(rank, activity="forward") for rank in range(4))) == {}


def test_ranks_that_all_wait_are_not_blamed() -> None:
    assert why() == {}
    hang = Hang(61.2, 60.0, (), tuple(beats().values()))
    assert str(hang) == "hang: no rank came on for 61 s; all ranks wait for each other"
    assert hang.lines() == [
        "no rank has come on for 61 s (60 s are the limit).",
        "  4 ranks (0, 1, 2, 3) wait in step 12 (gradients between ranks)",
    ]


def test_people_are_told_who_hangs_and_where_the_others_are() -> None:
    suspect = Suspect(beat(1, activity="backward"), STATES["T"])
    hang = Hang(70.0, 60.0, (suspect,), (beat(0), beat(2, phase="saving a checkpoint")))
    _, who, *others = hang.lines()
    assert who == f"  rank 1 (process 101 on bee), step 12 (backward): {STATES['T']}"
    assert others == [
        "  rank 0 waits in step 12 (gradients between ranks)",
        "  rank 2 waits in saving a checkpoint (step 12)",
    ]
    assert str(hang).startswith("hang: no rank came on for 70 s; rank 1 (process 101 on bee) is stopped by")
    assert hang.step == 12


def test_a_thousand_ranks_are_told_in_a_few_lines() -> None:
    many = tuple(Suspect(beat(rank), SILENT) for rank in range(500))
    lines = Hang(1.0, 1.0, many, tuple(beat(rank) for rank in range(500, 1000))).lines()
    assert len(lines) == 11
    assert lines[9] == "  and 492 more"
    assert "500 ranks (500, 501," in lines[10]


def test_a_suspended_job_is_no_hang() -> None:
    assert all_stopped(beats(), dict.fromkeys(range(4), "T"), 4)
    assert not all_stopped(beats(), {0: "T", 1: "T", 2: "T", 3: "S"}, 4)
    assert not all_stopped({0: beat(0)}, {0: "T"}, 1)


@settings(max_examples=40)
@given(
    st.lists(
        st.tuples(st.integers(0, 3), st.sampled_from(["forward", "reduce", ""]), st.sampled_from("SRTDZX")),
        min_size=1,
        max_size=6,
    ),
    st.sets(st.integers(0, 9)),
)
def test_whatever_ranks_show_none_is_named_that_is_not_there(
    shown: list[tuple[int, str, str]], still: set[int]
) -> None:
    there = {rank: beat(rank, begun=b, activity=a) for rank, (b, a, _) in enumerate(shown)}
    states = {rank: letter for rank, (_, _, letter) in enumerate(shown)}
    named = [found.beat.rank for found in suspects_of(there, states, still & there.keys())]
    assert set(named) <= there.keys()
    assert len(set(named)) == len(named)
