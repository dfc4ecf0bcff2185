"""Schedules as JSON Trace Event Format, which Perfetto (ui.perfetto.dev) and chrome://tracing open.

A process is a pipeline stage, called "stage S"; a thread is one of its ranks. Slices are called as the
engine's instructions are, so that a simulated and a measured schedule lie under each other. Format: "Trace
Event Format", Google, sections "Duration Events" (X), "Counter Events" (C) and "Metadata Events" (M).
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

CATEGORIES = {
    "LoadMicroBatch": "data",
    "DataWait": "data",
    "ForwardPass": "compute",
    "BackwardPass": "compute",
    "SendActivation": "transfer",
    "RecvActivation": "transfer",
    "SendGrad": "transfer",
    "RecvGrad": "transfer",
    "ReduceGrads": "collective",
    "ReduceTiedGrads": "collective",
    "GatherParameters": "collective",
    "OptimizerStep": "optimizer",
}
"""What Perfetto filters slices by."""
MICROSECONDS = 1e6
MADE_BY = ("made by", "vdsgen report")
"""In the head of every file: what may be overwritten is told by it."""


class Slice(NamedTuple):
    """Something that one rank did, or is predicted to do."""

    stage: int
    rank: int
    """Within its stage, from 0."""
    name: str
    micro_batch: int | None
    begin_seconds: float
    end_seconds: float


class Counted(NamedTuple):
    """What a stage holds from a moment on, in bytes by component."""

    stage: int
    at_seconds: float
    bytes_by_component: Mapping[str, int]


def trace_events(
    what: str, slices: Iterable[Slice], counted: Iterable[Counted] = (), words: Sequence[str] = ()
) -> bytes:
    """The file. `what` is "simulated" or "measured"; `words` are kept beside the events, for people."""
    slices = list(slices)
    events = [*_names(what, slices)]
    events += [_slice_event(one) for one in slices]
    events += [
        {
            "ph": "C",
            "pid": one.stage,
            "name": "memory (bytes)",
            "ts": _microseconds(one.at_seconds),
            "args": dict(one.bytes_by_component),
        }
        for one in counted
    ]
    document = {
        "displayTimeUnit": "ms",
        "otherData": {MADE_BY[0]: MADE_BY[1], "schedule": what, "notes": list(words)},
        "traceEvents": events,
    }
    return (json.dumps(document, separators=(",", ":"), ensure_ascii=True) + "\n").encode()


def _names(what: str, slices: Sequence[Slice]) -> Iterable[dict[str, Any]]:
    """Of processes and threads, in their order."""
    for stage in sorted({one.stage for one in slices}):
        yield _metadata("process_name", stage, 0, {"name": f"stage {stage}"})
        yield _metadata("process_labels", stage, 0, {"labels": what})
        yield _metadata("process_sort_index", stage, 0, {"sort_index": stage})
    for stage, rank in sorted({(one.stage, one.rank) for one in slices}):
        yield _metadata("thread_name", stage, rank, {"name": f"stage {stage}, rank {rank}"})


def _metadata(name: str, stage: int, rank: int, args: dict[str, Any]) -> dict[str, Any]:
    return {"ph": "M", "name": name, "pid": stage, "tid": rank, "args": args}


def _slice_event(one: Slice) -> dict[str, Any]:
    event: dict[str, Any] = {
        "ph": "X",
        "name": one.name,
        "cat": CATEGORIES.get(one.name, "other"),
        "pid": one.stage,
        "tid": one.rank,
        "ts": _microseconds(one.begin_seconds),
        # Of what is rounded: a slice ends where the next one begins, and not a nanosecond later.
        "dur": round(_microseconds(one.end_seconds) - _microseconds(one.begin_seconds), 3),
    }
    if one.micro_batch is not None:
        event["args"] = {"micro_batch": one.micro_batch}
    return event


def _microseconds(seconds: float) -> float:
    """To the nanosecond, which is what the format's readers keep."""
    return round(seconds * MICROSECONDS, 3)
