"""Traces of one process; those of a pipeline's ranks: test_run.py."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest
import torch
from torch import nn

from vdsgen.errors import VdsgenError
from vdsgen.model.monitoring.trace import Tracer, ask, take_request, trace_file
from vdsgen.spec.steps import Steps, parse_steps


def test_a_capture_is_a_file_that_perfetto_reads_with_our_spans(tmp_path: Path) -> None:
    layer = nn.Linear(4, 4)
    tracer = Tracer()
    tracer.watch([7], [layer])
    tracer.steps = Steps(2, 3)
    written = None
    for step in range(1, 5):
        tracer.step_begins(step)
        assert tracer.running == (step in (2, 3))
        with tracer.span(f"stage 1: ForwardPass {step}"):
            layer(torch.zeros(2, 4)).sum().backward()
        written = tracer.step_ends(step, tmp_path, rank=3) or written
    assert written == trace_file(tmp_path, Steps(2, 3), 3)
    assert [path.name for path in written.parent.iterdir()] == ["rank_00003.json.gz"]
    with gzip.open(written) as stream:
        trace = json.load(stream)
    names = {event.get("name") for event in trace["traceEvents"]}
    assert {"stage 1: ForwardPass 2", "stage 1: ForwardPass 3", "layer 7: Linear"} <= names
    assert "stage 1: ForwardPass 4" not in names


def test_a_request_is_taken_once_and_moved_to_steps_that_come(tmp_path: Path) -> None:
    assert take_request(tmp_path, 5) is None
    ask(tmp_path, Steps(10, 12))
    assert take_request(tmp_path, 5) == Steps(10, 12)
    assert take_request(tmp_path, 5) is None
    ask(tmp_path, Steps(10, 12))
    assert take_request(tmp_path, 20) == Steps(20, 22)
    (tmp_path / "profile-request").touch()
    assert take_request(tmp_path, 7) == Steps(7, 7)
    (tmp_path / "profile-request").write_text("soon; rm -rf /")
    assert take_request(tmp_path, 7) is None
    assert not (tmp_path / "profile-request").exists()


@pytest.mark.parametrize("text", ["", "0", "3:2", "a", "1:2:3", "-1", "1.5", "9" * 30])
def test_what_are_no_steps_is_refused(text: str) -> None:
    with pytest.raises(VdsgenError, match="no steps to profile"):
        parse_steps(text)


def test_steps_read_as_they_are_written() -> None:
    assert parse_steps("10:12") == Steps(10, 12)
    assert parse_steps(" 4\n") == Steps(4, 4)
    assert str(Steps(10, 12)) == "10:12"
