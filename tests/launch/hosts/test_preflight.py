"""The whole of it on this machine: the command, its ranks and its report."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest

from tests.forks.start import start
from tests.launch.hosts.lab import MIB, render_for
from tests.model.training import write_clips
from vdsgen.launch.hosts.report import Report


@pytest.mark.slow
def test_two_steps_of_the_real_job_are_rehearsed_and_removed(tmp_path: Path) -> None:
    plan = render_for(
        tmp_path / "plan", write_clips(tmp_path / "clips"), hosts=None, nodes=1, gpus_per_node=2
    )
    before = sorted(tmp_path.rglob("*"))
    arguments = ["preflight", str(plan), "--output", str(tmp_path / "runs" / "1"), "--json"]
    with tempfile.TemporaryFile("w+") as told, tempfile.TemporaryFile("w+") as shown:
        ended = start("vdsgen", *arguments, stdout=told, stderr=shown, forks=True)
        code = ended.wait(200)
        told.seek(0)
        shown.seek(0)
        document, said = told.read(), shown.read()
    assert code == 0, said + document
    report = Report.model_validate_json(document)
    assert report.ready
    states = {check.name: check.state for check in report.checks}
    assert {name for name, state in states.items() if state == "skipped"} == {"shared folder", "ports"}
    assert (states["links"], states["rehearsal"]) == ("ok", "ok")
    assert [one.kind for one in report.links] == ["intra_node", "all_reduce"]
    assert report.rehearsal is not None
    assert [one.rank for one in report.rehearsal.ranks] == [0, 1]
    assert all(0 < one.peak_bytes < one.planned_bytes == 100 * MIB for one in report.rehearsal.ranks)
    assert len(report.rehearsal.step_seconds) == 2
    assert "Rehearsing: step 2/2" in said
    assert sorted(tmp_path.rglob("*")) == before
