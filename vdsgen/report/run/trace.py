"""The measured and the simulated schedule in one file, for Perfetto: stages beside each other, twice."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

from vdsgen.errors import VdsgenError
from vdsgen.planner.words import seconds
from vdsgen.report.plan.simulated_trace import trace_of
from vdsgen.report.run.measured import measured_slices
from vdsgen.report.run.subject import RunSubject
from vdsgen.report.trace_events import trace_events

INNER = {"bubble": "wait", "transfer": "transfer", "reduce": "collective", "gather": "collective"}
"""Categories of what is within an instruction."""
SIDES = ("simulated", "measured")
"""Processes are numbered stage by stage: the simulated one, then the measured one."""


def run_trace(subject: RunSubject) -> bytes:
    """Raises VdsgenError where nothing was traced."""
    capture = subject.capture
    if capture is None or not capture.steps:
        raise VdsgenError(
            f"{subject.data.path}: no schedule was traced",
            remedy="vdsgen launch --trace-steps FIRST:LAST, or write such a line into RUN/trace-request",
        )
    steps = f"step {capture.steps[0]}" + (f" to {capture.steps[-1]}" if len(capture.steps) > 1 else "")
    words = [f"{subject.name}: {steps} as run"]
    uncertain = max(rank.clock_uncertainty_seconds for rank in capture.ranks)
    if uncertain:
        words.append(f"clocks of hosts were compared to {seconds(uncertain)}")
    measured = trace_events("measured", measured_slices(capture), words=words)
    simulated = None if subject.planned is None else trace_of(subject.planned)
    return combined(measured, simulated)


def combined(measured: bytes, simulated: bytes | None) -> bytes:
    """One document of both; `simulated` is None where the plan's costs are not known any more."""
    documents = {"measured": json.loads(measured)}
    if simulated is not None:
        documents = {"simulated": json.loads(simulated), **documents}
    notes = [note for document in documents.values() for note in document["otherData"]["notes"]]
    head = documents["measured"]["otherData"] | {"schedule": " and ".join(documents), "notes": notes}
    events = [
        event for side, document in documents.items() for event in _moved(side, document["traceEvents"])
    ]
    whole = {"displayTimeUnit": "ms", "otherData": head, "traceEvents": events}
    return (json.dumps(whole, separators=(",", ":"), ensure_ascii=True) + "\n").encode()


def _moved(side: str, events: Iterable[dict[str, Any]]) -> Iterable[dict[str, Any]]:
    """Into processes of this side's own, which lie beside the other side's of the same stage."""
    for event in events:
        # From 1 on: viewers keep process and thread 0 for a machine that idles.
        moved = {**event, "pid": 2 * event["pid"] + SIDES.index(side) + 1, "tid": event.get("tid", 0) + 1}
        if event["ph"] == "M" and event["name"] == "process_name":
            moved["args"] = {"name": f"{event['args']['name']} ({side})"}
        elif event["ph"] == "M" and event["name"] == "process_sort_index":
            moved["args"] = {"sort_index": moved["pid"]}
        elif event["ph"] == "X" and event["name"] in INNER:
            moved["cat"] = INNER[event["name"]]
        yield moved
