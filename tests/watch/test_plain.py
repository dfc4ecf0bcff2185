"""A frame as text and as JSON, and the command that prints it."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from tests.runs.directories import DEMO, add, beats, log, metrics_line, run_json, write_json, write_run
from tests.runs.test_reader import HOSTILE
from vdsgen.cli.main import cli
from vdsgen.errors import VdsgenError
from vdsgen.report.run.report import run_report
from vdsgen.runs.reader import RunReader
from vdsgen.watch.as_json import as_json
from vdsgen.watch.blocks import bar, sparkline
from vdsgen.watch.frame import Frame, Watcher
from vdsgen.watch.plain import plain_text


def frame(run: Path) -> Frame:
    return Watcher(RunReader(run)).look()


GOING = """\
cpu-demo                                                                 running: step 30 (backward)
[##################...........................................]  step 30 of 100   30 %   1m 11s left
2 pipeline x 2 data, ZeRO-0, bf16, stages at layers [0, 5, 10]

loss                 0.9116   0.9273 smoothed                     ████▇▇▆▆▆▅▅▅▄▄▄▃▃▃▃▂▂▂▂▂▁▁▁▁▁▁
held-out loss        1.0000   best 1.0000 at step 30              █▆▃▁
gradient norm        0.8024   0.9441 smoothed                     ██▆▃▁▁▃▅▅▃▁▁▂▄▅▄▂▁▁▄▅▄▂▁▁▃▅▅▃▁
learning rate      1.00e-03                                       ▁▁▂▃▄▅▆▇██████████████████████
step time            1.00 s   1.00 x the predicted 998 ms
samples/s                 8   predicted 8.02                      ▄▄▄▄▄▄▄▄▄▄▄▄▄▄▄▄▄▄▄▄▄▄▄▄▄▄▄▄▄▄
data wait             5.0 %   of a step: waiting for clips
bubble                9.5 %   predicted 0.0 %
checkpoint          step 20   next after step 50, in 20s

memory                 measured    planned           capacity
  rank 0  stage 0     262.0 MiB  271.8 MiB  x 0.96   4.00 GiB
  rank 1  stage 0     263.0 MiB  271.8 MiB  x 0.97   4.00 GiB
  rank 2  stage 1     258.0 MiB  269.8 MiB  x 0.96   4.00 GiB
  rank 3  stage 1     259.0 MiB  269.8 MiB  x 0.96   4.00 GiB

a step, by stage             forward          backward   bubble  messages  optimizer     data
  stage 0            155 ms / 100 ms   326 ms / 110 ms   120 ms    420 ms     160 ms   170 ms
  stage 1            155 ms / 100 ms   326 ms / 110 ms   120 ms    420 ms     160 ms   170 ms
  forward and backward: predicted / measured; messages: transfer, reduction, gathering

log
  step 30/100  loss 0.9
"""


def test_a_run_that_goes_on_at_a_glance(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run")
    beats(run)
    log(run, 0, "[vdsgen step] step 30/100  loss 0.9\n")
    text = plain_text(frame(run), 100)
    assert text == GOING.removesuffix("\n")


@pytest.mark.parametrize("width", [40, 80, 100, 200])
def test_no_line_is_wider_than_asked_nor_holds_what_a_terminal_obeys(tmp_path: Path, width: int) -> None:
    run = write_run(tmp_path / "run")
    beats(run)
    log(run, 1, f"[vdsgen] {HOSTILE * 30}\n")
    add(run, "alarms", {"kind": "loss_spike", "step": 12, "message": HOSTILE * 30, "remedy": HOSTILE})
    text = plain_text(frame(run), width)
    assert max(map(len, text.splitlines())) <= width
    assert all(character.isprintable() or character == "\n" for character in text)
    assert plain_text(frame(run), width, unicode=False).isascii()


def test_of_many_ranks_the_fullest_of_each_stage_is_shown(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run")
    layout = run_json()["layout"] | {"data_parallel_size": 32}
    write_json(run / "run.json", run_json() | {"layout": layout, "world_size": 64, "accelerator": "cuda"})
    add(run, "metrics", metrics_line(31, peak_memory_bytes=[2**30 + rank for rank in range(64)]))
    text = plain_text(frame(run))
    assert "rank 31  stage 0" in text and "rank 63  stage 1" in text
    assert "and 62 more" in text and "rank 30 " not in text


def test_json_is_of_fixed_keys_and_has_no_numbers_that_are_none(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", steps=400)
    beats(run)
    add(run, "metrics", metrics_line(401, loss=None))
    result = CliRunner().invoke(cli, ["watch", str(run), "--json"])
    assert result.exit_code == 1, "the loss is no number"
    found = json.loads(result.output)
    assert (found["schema_version"], found["state"], found["step"]) == (1, "running", 401)
    assert found["last"]["loss"] is None and found["smoothed"]["loss"] == pytest.approx(0.8, abs=1e-3)
    assert found["checkpoint"]["next_step"] is None, "past the last step"
    assert len(found["curves"]["loss"]) <= 200
    assert found["memory"][3]["stage"] == 1
    assert [alarm["kind"] for alarm in found["alarms"]] == ["loss"]


def test_once_waits_for_nothing_and_says_what_is_there(tmp_path: Path) -> None:
    result = CliRunner().invoke(cli, ["watch", str(tmp_path / "later"), "--once"])
    assert result.exit_code == 0
    assert "waiting for the run to start" in result.output
    run = write_run(tmp_path / "run")
    start = {"at": "2026-11-26T10:00:00+00:00", "from_step": 0, "plan": "plans/1"}
    write_json(run / "run.json", run_json(start | {"end": "rank 2 was killed by SIGKILL"}))
    result = CliRunner().invoke(cli, ["watch", str(run)])
    assert result.exit_code == 1, "no terminal: as --once"
    assert "failed: rank 2 was killed by SIGKILL" in result.output


def test_what_never_becomes_a_run_is_refused(tmp_path: Path) -> None:
    result = CliRunner().invoke(cli, ["watch", str(DEMO), "--once"])
    assert result.exit_code == 2
    assert "is a rendered directory" in result.output
    (tmp_path / "file").touch()
    assert CliRunner().invoke(cli, ["watch", str(tmp_path / "file")]).exit_code == 2


def test_nothing_is_written(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run")
    beats(run)
    before = {path: path.stat().st_mtime_ns for path in run.rglob("*")}
    frame(run)
    assert {path: path.stat().st_mtime_ns for path in run.rglob("*")} == before


def test_lines_of_blocks() -> None:
    assert sparkline([0, 1, 2, 3, 4, 5, 6, 7], 8) == "▁▂▃▄▅▆▇█"
    assert sparkline([0.0, None, None, 1.0], 4, unicode=False) == "_  #"
    assert sparkline([2.0] * 9, 3) == "▄▄▄"
    assert sparkline([None], 5) == sparkline([], 5) == ""
    assert bar(0.5, 12) == "[#####.....]"
    assert bar(7.0, 4) == "[##]"


def test_without_the_terminal_packages_it_is_said_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from vdsgen.cli.watch import _show

    monkeypatch.delitem(sys.modules, "vdsgen.watch.app", raising=False)
    monkeypatch.setitem(sys.modules, "textual.app", None)
    with pytest.raises(VdsgenError, match=r"pip install 'vdsgen\[watch\]'; or --once"):
        _show(tmp_path, 1.0)


EXTREMES: tuple[Any, ...] = (1e308, -1e308, 5e-324, 0, -1, 2**53, 10**400, "1", None, True, [], {})


@pytest.mark.parametrize("extreme", EXTREMES, ids=lambda value: str(value)[:8])
def test_any_number_anywhere_is_shown_or_left_out(tmp_path: Path, extreme: Any) -> None:
    """In text, in JSON, on the screen's curves and in the report's page."""
    run = write_run(tmp_path / "run", steps=3)
    plain = metrics_line(4)
    keys = [key for key in plain if key != "step"]
    lines = [metrics_line(4 + place, **{key: extreme}) for place, key in enumerate(keys)]
    stages = [dict.fromkeys(stage, extreme) for stage in plain["stages"]]
    everything = dict.fromkeys(keys, extreme) | {"stages": stages, "peak_memory_bytes": [extreme] * 4}
    add(run, "metrics", *lines, metrics_line(50, **everything), metrics_line(51))
    add(run, "validation", {"step": 60, "weights": "trained", "loss": extreme, "quantiles": extreme})
    add(run, "saves", {"step": 60, "bytes": extreme, "blocking_seconds": extreme})
    for record in ({}, {"accelerator": "cuda"}):
        write_json(run / "run.json", run_json() | record)
        found = frame(run)
        assert found.standing.step == 51
        plain_text(found)
        json.loads(as_json(found))
        run_report([run])
