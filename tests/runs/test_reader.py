"""A run directory that is read while it is written."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from tests.runs.directories import add, beat, beats, log, metrics_line, run_json, write_json, write_run
from vdsgen.errors import VdsgenError
from vdsgen.runs.memory import memory_of
from vdsgen.runs.notices import notices
from vdsgen.runs.reader import RunReader, read_run
from vdsgen.runs.state import Standing, standing


def stands(reader: RunReader, silent_seconds: float | None = 1.0) -> Standing:
    return standing(reader.look(), silent_seconds=silent_seconds)


def test_from_nothing_to_a_run_that_goes_on(tmp_path: Path) -> None:
    run = tmp_path / "run"
    reader = RunReader(run)
    assert stands(reader, None).state == "waiting"
    log(run_made(run), 0, "[vdsgen] Training.\n")
    assert stands(reader, None).state == "starting"
    beats(run, step=0, phase="building the engine")
    assert stands(reader) == Standing("starting", "building the engine", 0, None, None, None)
    write_run(run)
    beats(run)
    now = stands(reader)
    assert (now.state, now.why, now.step, now.steps) == ("running", "step 30 (backward)", 30, 100)
    assert now.step_seconds == 1.0
    assert now.seconds_left == 70 * 1.0 + 2 * 0.5, "a checkpoint after step 50 and one at the end"
    add(run, "metrics", metrics_line(31))
    assert stands(reader).step == 31


def run_made(run: Path) -> Path:
    run.mkdir()
    return run


def test_a_torn_last_line_waits_and_a_resumed_run_drops_steps(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run")
    reader = RunReader(run)
    with (run / "metrics.jsonl").open("a") as stream:
        stream.write(json.dumps(metrics_line(31))[:50])
    assert len(reader.look().steps) == 30
    lines = (run / "metrics.jsonl").read_bytes().split(b"\n")
    other = tmp_path / "other"  # as a resumed run writes the file anew: up to its checkpoint
    other.write_bytes(b"\n".join(lines[:20]) + b"\n")
    other.replace(run / "metrics.jsonl")
    add(run, "metrics", metrics_line(21, loss=0.5))
    data = reader.look()
    assert [step.step for step in data.steps] == list(range(1, 22))
    assert data.steps[-1].loss == 0.5
    assert len(data.stages) == 21
    assert data.unreadable_lines == 0


def test_how_runs_end(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run")
    beats(run)
    assert stands(RunReader(run), 31.0).state == "silent"
    start = {"at": "2026-11-26T10:00:00+00:00", "from_step": 0, "plan": "plans/1"}
    ended = {"end": "rank 2 (process 7) was killed by SIGKILL", "reached_step": 30}
    write_json(run / "run.json", run_json(start | ended))
    os.utime(run / "run.json", (2e9, 2e9))
    failed = stands(RunReader(run), 31.0)
    assert (failed.state, failed.why) == ("failed", "rank 2 (process 7) was killed by SIGKILL")
    write_json(run / "run.json", run_json(start | {"end": "stopped by SIGINT"}))
    os.utime(run / "run.json", (2e9, 2e9))
    assert stands(RunReader(run)).state == "stopped"
    os.utime(beat(run, 0), (2.1e9, 2.1e9))  # a restart, whose ranks have not come to write of it
    assert stands(RunReader(run)).state == "running"
    beats(run, phase="done")
    assert stands(RunReader(run)).state == "stopped"
    add(run, "metrics", metrics_line(100))
    assert stands(RunReader(run)).state == "finished"


def test_runs_of_versions_without_heartbeats_have_finished_with_their_summary(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run")
    write_json(run / "summary.json", {"steps": 30})
    assert stands(RunReader(run), None).state == "finished"


def test_memory_is_compared_with_the_plan_of_each_stage(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run")
    data = read_run(run)
    assert data.plan is not None
    found = memory_of(data)
    assert [rank.stage for rank in found] == [0, 0, 1, 1]
    assert found[1].measured_bytes == 263 * 2**20
    assert found[1].planned_bytes == data.plan.stages[0].measured_bytes(on_processor=True)
    add(run, "metrics", metrics_line(31, peak_memory_bytes=[2**40] * 4))
    assert memory_of(read_run(run)) == found, "on a processor only the first steps measure exactly"
    record = run_json()
    write_json(run / "run.json", record | {"accelerator": "cuda"})
    assert [rank.over_capacity for rank in memory_of(read_run(run))] == [True] * 4


def test_what_somebody_should_look_at(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run")
    beats(run)
    add(run, "metrics", *(metrics_line(step, loss=None, overflow=True) for step in range(31, 37)))
    alarm = {"kind": "loss_spike", "step": 12, "message": "step 12: the loss jumped", "remedy": "look"}
    add(run, "alarms", alarm, alarm | {"kind": "not_finite", "step": 31})
    reader = RunReader(run)
    now = stands(reader)
    found = notices(reader.data, now, hang="no rank has come on for 99 s")
    assert [(notice.severity, notice.kind) for notice in found] == [
        ("error", "hang"),
        ("error", "loss"),
        ("warning", "overflow"),
        ("error", "not_finite"),
        ("warning", "loss_spike"),
    ]
    assert "since step 31" in found[1].message
    assert "6 of the last 36 steps" in found[2].message


HOSTILE = '\x1b]0;owned\x07[bold red]\u202e"'


def test_hostile_files_neither_end_it_nor_reach_a_terminal(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run")
    beats(run)
    record = run_json({"at": HOSTILE, "from_step": -1, "end": HOSTILE, "plan": "../../../etc"})
    write_json(run / "run.json", record | {"devices": 7, "steps": 10**30, "layout": {"x": 1}})
    bad = (
        metrics_line(31, loss="NaN", grad_norm=10**400, peak_memory_bytes=[-1, "x"], bucket=HOSTILE),
        metrics_line(32, step_seconds=None),
        {"step": True},
        {"step": 33},
    )
    add(run, "metrics", *bad)
    with (run / "metrics.jsonl").open("ab") as stream:
        stream.write(b'{"step": 34, "step_seconds": NaN}\n\xff\xfe\n' + b"[" * 100_000 + b"\n[1]\n")
    add(run, "alarms", {"kind": HOSTILE, "step": 1, "message": HOSTILE}, {"step": 2})
    log(run, 0, f"[vdsgen] {HOSTILE}\n[vdsgen step] {HOSTILE}\nValueError: {HOSTILE}\nchatter\n")
    data = RunReader(run).look()
    assert data.record is not None and data.record.layout is None and data.record.steps is None
    assert len(data.steps) == 31
    assert (data.steps[-1].loss, data.steps[-1].grad_norm, data.steps[-1].peak_bytes) == (None, None, ())
    assert data.plan is not None, "only the run's own copies are plans"
    texts = [data.record.starts[0].end, data.alarms[0].message, data.steps[-1].bucket]
    texts += [line.text for line in data.log]
    assert [line.kind for line in data.log] == ["message", "step", "error"]
    assert all(text is not None and text.isprintable() for text in texts)
    assert {rank.planned_bytes for rank in memory_of(data)} == {None}


def test_logs_are_of_the_newest_start_and_a_message_of_all_ranks_is_one(tmp_path: Path) -> None:
    run = run_made(tmp_path / "run")
    log(run, 0, "[vdsgen] of the first start\n", start="20261126100000")
    reader = RunReader(run)
    assert [line.text for line in reader.look().log] == ["of the first start"]
    for rank in range(3):
        log(run, rank, "[vdsgen] said by all\n", start="20261126110000")
    log(run, 2, "[vdsgen] by one\n", start="20261126110000")
    found = [(line.rank, line.text) for line in reader.look().log]
    assert found == [(0, "said by all"), (2, "by one")]


def test_what_is_no_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(VdsgenError, match="is no run directory"):
        read_run(tmp_path)
