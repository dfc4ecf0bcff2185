"""What hosts have with each other: time, a folder, a port, links."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.launch.hosts.made import expected, planned
from vdsgen.launch.hosts.links import compare_links, rates_of, slowest
from vdsgen.launch.hosts.together import (
    LAUNCHER,
    Exchange,
    Marks,
    Meeting,
    Offset,
    compare_clocks,
    compare_marks,
    compare_meeting,
    offset_of,
)

RUN = Path("/lab/runs/1")
DELAYS = st.floats(0, 2)


@settings(max_examples=50)
@given(st.floats(-100, 100), st.lists(st.tuples(DELAYS, DELAYS), min_size=1, max_size=6))
def test_a_clocks_offset_is_known_to_its_uncertainty(ahead: float, ways: list[tuple[float, float]]) -> None:
    exchanges, now = [], 1000.0
    for there, back in ways:
        exchanges.append(Exchange(now, now + there + ahead, now + there + back))
        now += there + back + 1
    offset = offset_of(exchanges)
    assert abs(offset.seconds - ahead) <= offset.uncertainty_seconds + 1e-9
    assert offset.uncertainty_seconds <= min(there + back for there, back in ways) / 2 + 1e-9


def test_a_clock_is_told_only_where_it_is_certainly_off() -> None:
    offsets = {"a": Offset(0.9, 0.0), "b": Offset(-90.0, 0.02), "c": Offset(3.0, 2.5), "d": Offset(1.5, 0.01)}
    found = list(compare_clocks(offsets))
    assert [(one.host, one.severity) for one in found] == [("b", "warning"), ("d", "warning")]
    assert found[0].message == "its clock is 90.0 s behind this machine's (give or take 20 ms)"


def test_a_shared_folder_shows_everything_to_everyone() -> None:
    written = {LAUNCHER: "l", "a": "1", "b": "2"}
    whole = Marks(written, {}, dict.fromkeys((LAUNCHER, "a", "b"), written))
    assert list(compare_marks(RUN, whole)) == []


@pytest.mark.parametrize(
    ("marks", "host", "words"),
    [
        (Marks({LAUNCHER: "l", "a": "1"}, {"b": "No such file or directory"},
               {LAUNCHER: {"a": "1"}, "a": {LAUNCHER: "l"}, "b": {}}), "b", "another one there"),
        (Marks({LAUNCHER: "l", "a": "1"}, {"b": "Permission denied"},
               {LAUNCHER: {"a": "1"}, "a": {LAUNCHER: "l"}, "b": {LAUNCHER: "l", "a": "1"}}),
         "b", "cannot write into the run directory /lab/runs/1: Permission denied"),
        (Marks({LAUNCHER: "l", "a": "1", "b": "2"}, {},
               {LAUNCHER: {"a": "1"}, "a": {LAUNCHER: "l", "b": "2"}, "b": {LAUNCHER: "l", "a": "1"}}),
         "b", "is not seen here"),
        (Marks({LAUNCHER: "l", "a": "1", "b": "2"}, {},
               {LAUNCHER: {"a": "1", "b": "2"}, "a": {LAUNCHER: "l", "b": "2"},
                "b": {LAUNCHER: "l", "a": "old"}}),
         "b", "does not see what a writes"),
    ],
)  # fmt: skip
def test_a_folder_that_is_not_shared_is_told(marks: Marks, host: str, words: str) -> None:
    (found,) = compare_marks(RUN, marks)
    assert (found.host, found.severity) == (host, "error")
    assert words in found.message


def test_a_port_is_free_and_reached() -> None:
    assert list(compare_meeting(Meeting("a", 29500, None, {}))) == []
    taken, unreached = compare_meeting(Meeting("a", 29500, "taken by process 3 (x)", {"b": "timed out"}))
    assert taken.message == "port 29500, at which ranks meet, is not free: taken by process 3 (x)"
    assert unreached.message == "does not reach a at port 29500, where ranks meet: timed out"


def measured(kind: str, first: int, second: int, rate: float) -> dict[str, object]:
    return {"kind": kind, "first": first, "second": second, "bytes_per_second": rate}


def test_a_link_that_no_lab_file_knows_is_only_told() -> None:
    job = expected(planned("a", inter_bytes_per_second=None), planned("b", first=1))
    (rate,) = rates_of(job, [measured("inter_node", 0, 1, 1e6)])
    assert rate.planned_bytes_per_second is None
    assert list(compare_links([rate])) == []


def test_links_are_compared_with_what_the_plan_counts_on() -> None:
    slow = planned("b", 2, first=2, inter_bytes_per_second=5e9)
    job = expected(planned("a", 2), slow)
    rates = rates_of(
        job,
        [
            measured("intra_node", 0, 1, 19e9),
            measured("intra_node", 2, 3, 9e9),
            measured("inter_node", 0, 2, 3.5e9),
            measured("all_reduce", 0, 3, 1e9),
        ],
    )
    assert [one.planned_bytes_per_second for one in rates] == [20e9, 20e9, 5e9, 5e9]
    (found,) = compare_links(rates)
    assert (found.host, found.severity) == ("b", "warning")
    assert "(ranks 2 and 3) 9 GB/s pass each way, the plan counts on 20 GB/s (45%)" in found.message
    (found,) = list(compare_links(rates, enough=0.8))[1:]
    assert found.host == "a, b"
    assert {kind: one.first for kind, one in slowest(rates).items()} == {
        "intra_node": 2,
        "inter_node": 0,
        "all_reduce": 0,
    }
