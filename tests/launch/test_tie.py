"""Who hears nothing gives its launcher up; who was told to expect nothing does not."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator

import pytest

from vdsgen.launch.tie import AWAY, HERE, HostsEnd, LaunchersEnd


@pytest.fixture
def ends() -> Iterator[tuple[LaunchersEnd, HostsEnd]]:
    """Of a pipe."""
    reading, writing = os.pipe()
    with os.fdopen(reading, "rb"), os.fdopen(writing, "wb", buffering=0) as stream:
        yield LaunchersEnd(stream), HostsEnd(reading, silence_seconds=0.05)


def test_beats_hold_and_silence_cuts(ends: tuple[LaunchersEnd, HostsEnd]) -> None:
    here, host = ends
    here.beat()
    assert host.words() is not None
    time.sleep(0.1)
    assert host.words() is None


def test_a_launcher_that_never_beats_is_not_given_up(ends: tuple[LaunchersEnd, HostsEnd]) -> None:
    _, host = ends
    time.sleep(0.1)
    assert host.words() is not None


def test_a_suspended_launcher_is_waited_for(ends: tuple[LaunchersEnd, HostsEnd]) -> None:
    here, host = ends
    here.beat()
    here.go_away()
    assert host.words() == [HERE, AWAY]
    time.sleep(0.1)
    assert host.words() is not None
    here.beat()
    assert host.words() is not None
    time.sleep(0.1)
    assert host.words() is None


def test_two_beats_have_their_distance(ends: tuple[LaunchersEnd, HostsEnd]) -> None:
    here, host = ends
    for _ in range(3):
        here.beat()
    here.say("look")
    assert host.words() == [HERE, "look"]


def test_the_end_of_the_input_cuts_at_once() -> None:
    reading, writing = os.pipe()
    os.close(writing)
    with os.fdopen(reading, "rb"):
        assert HostsEnd(reading, silence_seconds=1000).words() is None


def test_a_host_that_is_gone_is_no_error_here() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing, "wb", buffering=0) as stream:
        here = LaunchersEnd(stream)
        here.beat()
    here.go_away()
