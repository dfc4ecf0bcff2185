"""Traces: what viewers need, the plan's figures, and the same names for simulated and measured ones."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from typing import get_args

import pytest

from tests.report.subjects import example
from vdsgen.cost.instructions import Name
from vdsgen.cost.step_slices import BESIDES
from vdsgen.report.plan.simulated_trace import trace_of
from vdsgen.report.trace_events import CATEGORIES, Counted, Slice, trace_events


def test_a_trace_names_its_tracks_and_counts_in_microseconds() -> None:
    slices = [Slice(1, 0, "ForwardPass", 3, 0.5, 0.75), Slice(0, 2, "OptimizerStep", None, 1.0, 1.5)]
    document = json.loads(trace_events("measured", slices, [Counted(1, 0.5, {"parameters": 7})], ["a note"]))
    events = document["traceEvents"]
    assert document["otherData"] == {"made by": "vdsgen report", "schedule": "measured", "notes": ["a note"]}
    names = {(one["pid"], one["tid"], one["args"].get("name")) for one in events if one["ph"] == "M"}
    assert {(0, 0, "stage 0"), (1, 0, "stage 1"), (0, 2, "stage 0, rank 2")} <= names
    first, second = (one for one in events if one["ph"] == "X")
    assert (first["name"], first["ts"], first["dur"], first["args"]) == (
        "ForwardPass",
        500_000.0,
        250_000.0,
        {"micro_batch": 3},
    )
    assert "args" not in second
    (counted,) = (one for one in events if one["ph"] == "C")
    assert counted["args"] == {"parameters": 7}


def test_every_instruction_and_every_wait_has_a_category() -> None:
    known = {*CATEGORIES, "OffloadTraffic", "Overhead"}
    assert known >= {*get_args(Name), *BESIDES}


def test_a_plans_trace_is_its_step() -> None:
    subject = example("article-2.1b-pinned@eight-24gb")
    content = trace_of(subject)
    assert content == trace_of(subject)
    events = json.loads(content)["traceEvents"]
    slices = [one for one in events if one["ph"] == "X"]
    end = max(one["ts"] + one["dur"] for one in slices) / 1e6
    assert end == pytest.approx(subject.plan.predicted.step_seconds, rel=1e-6)
    counts = Counter((one["pid"], one["name"]) for one in slices)
    for stage in range(4):
        assert counts[stage, "ForwardPass"] == counts[stage, "BackwardPass"] == 16
    peaks: dict[int, int] = defaultdict(int)
    for one in events:
        if one["ph"] == "C":
            peaks[one["pid"]] = max(peaks[one["pid"]], sum(one["args"].values()))
    assert [peaks[stage.index] for stage in subject.plan.stages] == [
        stage.memory.peak_bytes for stage in subject.plan.stages
    ]
