"""What a run's report shows, section by section."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from tests.runs.directories import DEMO, REAL, add, metrics_line, run_json, write_json, write_run
from vdsgen.cli.main import cli
from vdsgen.report.run import samples
from vdsgen.report.run.report import report_of
from vdsgen.report.run.samples import samples_section
from vdsgen.report.run.subject import read_subjects
from vdsgen.report.section import Figure, Report


def report(*runs: Path) -> Report:
    return report_of(read_subjects(runs))


def figure(found: Report, name: str) -> Figure:
    return next(one for section in found.sections for one in section.figures if one.id == name)


def curves(found: Figure) -> dict[str, list[list[float | None]]]:
    return {one["name"]: one["points"] for one in found.data["series"]}


def facts(found: Report, subject: int = 0) -> dict[str, str]:
    return {fact.label: fact.value for fact in found.subjects[subject].facts}


def test_the_headline_of_a_real_run() -> None:
    found = report(REAL)
    shown = facts(found)
    assert shown["finished"] == "step 24 of 24"
    assert shown["started again"] == "1 x"
    assert [section.id for section in found.sections] == [
        "learning",
        "samples",
        "speed",
        "schedule",
        "memory-measured",
        "happenings",
    ]


def test_losses_raw_smoothed_and_held_out_with_the_restart_marked() -> None:
    found = report(REAL)
    loss = figure(found, "loss")
    assert list(curves(loss)) == ["loss", "loss, smoothed"]
    assert [x for x, _ in curves(loss)["loss"]] == list(range(1, 25))
    assert loss.data["marks"] == [{"at": 8, "label": "restart"}]
    assert len(loss.table.rows) == 24
    held_out = curves(figure(found, "held-out-loss"))
    assert list(held_out) == ["held-out loss", "at the least noise", "at the most noise"]
    assert [x for x, _ in held_out["held-out loss"]] == [0, 6, 12, 18, 24]


def test_overflows_stand_on_the_loss_scale_and_lost_losses_are_gaps(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", steps=4, dtype="fp16")
    add(run, "metrics", metrics_line(5, loss=None, grad_norm=None, loss_scale=65536.0, overflow=True))
    add(run, "metrics", metrics_line(6, loss_scale=32768.0, overflow=False))
    found = report(run)
    scale = curves(figure(found, "loss-scale"))
    assert scale["1 overflows: steps skipped"] == [[5, 65536.0]]
    assert curves(figure(found, "loss"))["loss"][4] == [5, None]
    assert figure(found, "gradient-norm").data["y"]["log"]
    assert "1 steps have no finite loss." in found.sections[0].summary


def test_speed_beside_the_plan(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", steps=30)
    add(run, "metrics", metrics_line(31, step_seconds=9.0))
    found = report(run)
    assert figure(found, "step-time").data["limits"] == [
        {"at": pytest.approx(0.9975, abs=1e-3), "label": "predicted 998 ms"}
    ]
    counts = figure(found, "step-time-distribution").data["series"][0]["values"]
    assert sum(counts) == 29 and counts[0] == 28 and counts[-1] == 1, "without the first two steps"
    stages = figure(found, "stage-seconds").data
    assert stages["categories"] == [
        "stage 0, measured",
        "stage 0, predicted",
        "stage 1, measured",
        "stage 1, predicted",
    ]
    by_name = {one["name"]: one["values"] for one in stages["series"]}
    assert by_name["bubble"][0] == 0.12 and by_name["bubble"][1] == 0
    record = run_json()
    write_json(run / "run.json", record | {"accelerator": "cuda"})
    assert "utilisation" in facts(report(run)), "on GPUs alone"


def test_the_measured_schedule_lies_beside_the_simulated_one() -> None:
    found = report(REAL)
    measured, simulated = (figure(found, f"schedule-{side}").data for side in ("measured", "simulated"))
    assert measured["longest"] == simulated["longest"], "one axis of time"
    assert measured["names"] == [f"stage {rank // 2}, rank {rank}" for rank in range(4)]
    for rank, row in enumerate(measured["rows"]):
        planned = simulated["rows"][rank // 2]
        passes = [(letter, batch) for letter, batch in zip(row["letters"], row["batches"], strict=True)]
        for letter in "FB":
            assert [batch for one, batch in passes if one == letter] == [0, 1, 2, 3]
        assert [one for one in row["letters"] if one in "FB"] == [
            one for one in planned["letters"] if one in "FB"
        ], "1F1B, as it was simulated"
        spent = sum(row["lengths"]) + sum(row["gaps"].values())
        assert 0.8 * measured["end"] < spent <= measured["end"] + 1e-6
    assert len(figure(found, "schedule-measured").table.rows) == 4


def test_memory_of_ranks_and_of_many_the_fullest_of_each_stage(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run")
    memory = figure(report(run), "rank-memory")
    assert memory.data["categories"][2] == "rank 2, stage 1"
    assert memory.data["value"]["name"] == "MiB"
    assert [one["name"] for one in memory.data["series"]] == ["measured", "planned"]
    assert memory.table.rows[1][3] == "0.97"
    layout = run_json()["layout"] | {"data_parallel_size": 64}
    write_json(run / "run.json", run_json() | {"layout": layout, "accelerator": "cuda"})
    add(run, "metrics", metrics_line(31, peak_memory_bytes=[2**31 + rank for rank in range(128)]))
    memory = figure(report(run), "rank-memory")
    assert memory.data["categories"] == ["rank 63, stage 0", "rank 127, stage 1"]
    assert "126 others are left out" in memory.note


def test_what_happened_when(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run")
    start: dict[str, Any] = {"at": "2026-11-26T10:00:00+00:00", "from_step": 0, "plan": "plans/1"}
    killed = {"end": "rank 2 was killed by SIGKILL", "reached_step": 25}
    write_json(run / "run.json", run_json(start | killed, start | {"from_step": 20}))
    add(run, "alarms", {"kind": "loss_spike", "step": 12, "message": "it jumped", "remedy": "look"})
    found = figure(report(run), "events")
    assert found.data["rows"] == ["starts", "failures", "loss spikes", "checkpoints"]
    assert found.data["bad"] == [False, True, True, False]
    assert [12, 2, "it jumped -> look"] in found.data["events"]
    assert [25, 1, "rank 2 was killed by SIGKILL"] in found.data["events"]


def test_two_runs_share_their_axes(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run")
    found = report(REAL, run)
    assert list(curves(figure(found, "loss"))) == [
        "A: loss",
        "A: loss, smoothed",
        "B: loss",
        "B: loss, smoothed",
    ]
    tops = {figure(found, name).data["value"]["max"] for name in ("rank-memory-a", "rank-memory-b")}
    assert len(tops) == 1
    ends = {figure(found, name).data["x"]["max"] for name in ("events-a", "events-b")}
    assert ends == {30}


def test_videos_that_are_none_and_those_too_large_stay_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = shutil.copytree(REAL, tmp_path / "run")
    (run / "samples" / "step-00000001.mp4").write_text("<script>alert(1)</script>")
    (run / "samples" / "step-x.mp4").write_bytes(b"\0\0\0\x18ftyp")
    section = samples_section(read_subjects([run]))
    assert section is not None
    assert [media.title for media in section.media] == ["after step 12", "after step 24"]
    assert {media.media_type for media in section.media} == {"video/mp4"}
    size = (run / "samples" / "step-00000024.mp4").stat().st_size
    monkeypatch.setattr(samples, "MOST_BYTES", size + 100)
    section = samples_section(read_subjects([run]))
    assert section is not None
    assert [media.title for media in section.media] == ["after step 24"], "the last one first"
    assert section.summary[1].startswith("1 of 2 sample videos are not in this page")


def test_a_run_and_a_plan_are_not_compared(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run")
    result = CliRunner().invoke(cli, ["report", str(run), str(DEMO), "--out", str(tmp_path / "r.html")])
    assert result.exit_code == 2
    assert "one directory is a run's, the other is not" in result.output


def test_hostile_names_are_shown_as_text(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run")
    evil = "</script><img src=x onerror=alert(1)>"
    add(run, "alarms", {"kind": evil, "step": 3, "message": evil, "remedy": evil})
    out = tmp_path / "r.html"
    assert CliRunner().invoke(cli, ["report", str(run), "--out", str(out)]).exit_code == 0
    text = out.read_text()
    assert "<img src=x" not in text
    assert json.dumps(evil)[1:-1].replace("<", "\\u003c").replace(">", "\\u003e") in text
