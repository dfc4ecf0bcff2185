"""A measured schedule for trace viewers, beside the simulated one: of a real run (tests/runs/data)."""

from __future__ import annotations

import json
from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from tests.runs.directories import REAL, write_run
from vdsgen.cli.main import cli
from vdsgen.errors import VdsgenError
from vdsgen.report.run.report import trace_of_run
from vdsgen.runs.traces import captures, read_trace


@pytest.fixture(scope="module")
def trace() -> dict[str, Any]:
    found: dict[str, Any] = json.loads(trace_of_run(REAL))
    return found


def slices(trace: dict[str, Any]) -> list[dict[str, Any]]:
    return [event for event in trace["traceEvents"] if event["ph"] == "X"]


def test_it_is_a_trace_of_the_format(trace: dict[str, Any]) -> None:
    """Trace Event Format: complete events with their times in microseconds, names as metadata."""
    assert trace["displayTimeUnit"] == "ms"
    for event in trace["traceEvents"]:
        assert event["ph"] in ("X", "M", "C")
        assert {"name", "pid"} <= event.keys()
        assert isinstance(event["pid"], int) and event["pid"] > 0
        if event["ph"] == "X":
            assert {"ts", "dur", "tid", "cat"} <= event.keys()
            assert event["ts"] >= 0 and event["dur"] >= 0
            assert isinstance(event["tid"], int) and event["tid"] > 0
    assert trace["otherData"]["schedule"] == "simulated and measured"


def test_slices_of_a_track_follow_each_other_or_lie_within_each_other(trace: dict[str, Any]) -> None:
    tracks = defaultdict(list)
    for event in slices(trace):
        tracks[event["pid"], event["tid"]].append(event)
    assert len(tracks) == 2 + 4, "a simulated track a stage, a measured one a rank"
    depths = set()
    for events in tracks.values():
        events.sort(key=lambda event: (event["ts"], -event["dur"]))
        inside: list[float] = []
        for event in events:
            end = event["ts"] + event["dur"]
            while inside and inside[-1] <= event["ts"] + 1e-6:
                inside.pop()
            assert not inside or end <= inside[-1] + 1e-6, "a slice ends after what it lies in"
            inside.append(end)
            depths.add(len(inside))
    assert depths == {1, 2}


def test_both_sides_have_the_same_names_and_lie_beside_each_other(trace: dict[str, Any]) -> None:
    names = {
        event["pid"]: event["args"]["name"]
        for event in trace["traceEvents"]
        if event["ph"] == "M" and event["name"] == "process_name"
    }
    assert [names[pid] for pid in sorted(names)] == [
        "stage 0 (simulated)",
        "stage 0 (measured)",
        "stage 1 (simulated)",
        "stage 1 (measured)",
    ]
    passes: dict[tuple[str, int], list[int]] = defaultdict(list)
    for event in slices(trace):
        if event["name"] == "ForwardPass":
            passes[names[event["pid"]], event["tid"]].append(event["args"]["micro_batch"])
    assert passes["stage 0 (simulated)", 1] == [0, 1, 2, 3]
    assert passes["stage 0 (measured)", 1] == passes["stage 0 (measured)", 2] == 2 * [0, 1, 2, 3]
    for side in ("simulated", "measured"):
        of_side = {event["name"] for event in slices(trace) if names[event["pid"]].endswith(f"({side})")}
        assert {"ForwardPass", "BackwardPass", "SendActivation", "RecvGrad", "OptimizerStep"} <= of_side
    inner = {event["name"]: event["cat"] for event in slices(trace) if event["name"].islower()}
    assert inner["bubble"] == "wait" and inner["transfer"] == "transfer"


def test_a_stage_works_on_an_activation_after_it_was_sent(trace: dict[str, Any]) -> None:
    """By the common clock: what the file is for."""
    first, second = (
        {
            event["args"]["micro_batch"]: event
            for event in slices(trace)
            if event["pid"] == pid and event["tid"] == 1 and event["name"] == name
        }
        for pid, name in ((2, "SendActivation"), (4, "ForwardPass"))
    )
    for micro_batch in range(4):
        assert second[micro_batch]["ts"] > first[micro_batch]["ts"]


def test_the_command_writes_page_and_trace(tmp_path: Path) -> None:
    page, trace = tmp_path / "r.html", tmp_path / "t.json"
    arguments = ["report", str(REAL), "--out", str(page), "--trace", str(trace)]
    result = CliRunner().invoke(cli, arguments)
    assert result.exit_code == 0, result.output
    assert trace.read_bytes() == trace_of_run(REAL), "the same bytes for the same run"
    assert page.stat().st_size < 2_000_000


def test_without_a_trace_it_is_said_how_to_get_one(tmp_path: Path) -> None:
    with pytest.raises(VdsgenError, match="no schedule was traced"):
        trace_of_run(write_run(tmp_path / "run"))


@pytest.mark.parametrize(
    "content",
    ["", "[]", '{"rank": 0}', '{"rank": 0, "stage": 0, "rank_in_stage": 0}\n{"step": 1}', "\x00"],
)
def test_damaged_traces_are_named(tmp_path: Path, content: str) -> None:
    folder = tmp_path / "traces" / "step-00000001-to-00000002"
    folder.mkdir(parents=True)
    (folder / "rank_00000.jsonl").write_text(content)
    assert captures(tmp_path) == [folder]
    with pytest.raises(VdsgenError, match="rank_00000"):
        read_trace(folder)


def test_what_is_no_instruction_is_left_out(tmp_path: Path) -> None:
    head = {"rank": 0, "stage": 0, "rank_in_stage": 0}
    step = {
        "step": 1,
        "began": 5.0,
        "seconds": 1.0,
        "instructions": [["ForwardPass", 0, 0.0, 0.5], ["<b>", 0, 0.5, 1.0], ["ForwardPass", 1, 0.9, 0.1], 7],
        "activities": [["forward", 0.0, 0.5], ["forward", 0.5, "x"]],
    }
    (tmp_path / "rank_00000.jsonl").write_text(f"{json.dumps(head)}\n{json.dumps(step)}\n")
    (traced,) = read_trace(tmp_path).ranks[0].steps
    assert [(one.name, one.micro_batch) for one in traced.instructions] == [("ForwardPass", 0)]
    assert len(traced.activities) == 1
