"""Who hears nothing gives its launcher up; who was told to expect nothing does not."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator

import pytest

from vdsgen.launch.tie import Beats, Tie


@pytest.fixture
def ends() -> Iterator[tuple[Beats, Tie, int]]:
    """Both ends of a pipe, and the descriptor of the launcher's."""
    reading, writing = os.pipe()
    with os.fdopen(reading, "rb"), os.fdopen(writing, "wb", buffering=0) as stream:
        yield Beats(stream), Tie(reading, silence_seconds=0.05), writing


def test_beats_hold_and_silence_cuts(ends: tuple[Beats, Tie, int]) -> None:
    beats, tie, _ = ends
    beats.beat()
    assert not tie.is_cut()
    time.sleep(0.1)
    assert tie.is_cut()


def test_a_launcher_that_never_beats_is_not_given_up(ends: tuple[Beats, Tie, int]) -> None:
    _, tie, _ = ends
    time.sleep(0.1)
    assert not tie.is_cut()


def test_a_suspended_launcher_is_waited_for(ends: tuple[Beats, Tie, int]) -> None:
    beats, tie, _ = ends
    beats.beat()
    beats.goes_away()
    assert not tie.is_cut()
    time.sleep(0.1)
    assert not tie.is_cut()
    beats.beat()
    assert not tie.is_cut()
    time.sleep(0.1)
    assert tie.is_cut()


def test_two_beats_have_their_distance(ends: tuple[Beats, Tie, int]) -> None:
    beats, tie, _ = ends
    for _ in range(3):
        beats.beat()
    assert os.read(tie._descriptor, 10) == b"."


def test_the_end_of_the_input_cuts_at_once() -> None:
    reading, writing = os.pipe()
    os.close(writing)
    with os.fdopen(reading, "rb"):
        assert Tie(reading, silence_seconds=1000).is_cut()


def test_a_host_that_is_gone_is_no_error_here() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing, "wb", buffering=0) as stream:
        beats = Beats(stream)
        beats.beat()
    beats.goes_away()
