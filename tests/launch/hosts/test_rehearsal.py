"""What a rehearsal measured, what it fails with, and the report."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.launch.hosts.made import expected, facts, gpu, planned, stage
from tests.render.plans import plan_of
from vdsgen.launch.hosts.finding import Finding
from vdsgen.launch.hosts.links import LinkRate
from vdsgen.launch.hosts.rehearsal import (
    Audience,
    InterruptedRehearsalError,
    Rehearsal,
    compare_peaks,
    read_rehearsal,
    rehearse,
)
from vdsgen.launch.hosts.report import report_of, text_of
from vdsgen.launch.hosts.survey import Survey, scratch_in
from vdsgen.launch.hosts.together import Offset
from vdsgen.launch.run import Outcome
from vdsgen.launch.watch import Death
from vdsgen.units import GIB

MEMORY = plan_of().stages[0].memory
PLANNED = MEMORY.peak_bytes - MEMORY.reserve_bytes
TWO = expected(planned("a"), planned("b", first=1))


def written(tmp_path: Path, *peaks: list[int]) -> Path:
    steps = [{"step": n, "step_seconds": 3.0 / n, "peak_memory_bytes": one} for n, one in enumerate(peaks, 1)]
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(step) + "\n" for step in steps))
    summary = {"predicted": {"step_seconds": 1.25}, "measured": {"memory_meaning": "tensors"}}
    (tmp_path / "summary.json").write_text(json.dumps(summary))
    return tmp_path


def test_peaks_of_ranks_stand_beside_the_plans(tmp_path: Path) -> None:
    found = read_rehearsal(written(tmp_path, [5, 9 * GIB], [7, 8 * GIB]), TWO, 42.0)
    assert [(one.rank, one.host, one.peak_bytes) for one in found.ranks] == [(0, "a", 7), (1, "b", 9 * GIB)]
    assert {one.planned_bytes for one in found.ranks} == {PLANNED}
    assert (found.step_seconds, found.planned_step_seconds) == ((3.0, 1.5), 1.25)
    assert compare_peaks(TWO, found) == []


def test_a_rank_that_takes_more_than_the_reserve_is_named(tmp_path: Path) -> None:
    over = MEMORY.peak_bytes + 1
    (found,) = compare_peaks(TWO, read_rehearsal(written(tmp_path, [over - 1, over]), TWO, 42.0))
    assert (found.host, found.severity) == ("b", "warning")
    assert (
        "rank 1 took 18.3 GiB at its peak, the plan has 16.2 GiB for it and 2.0 GiB in reserve"
        in found.message
    )


def ended(
    monkeypatch: pytest.MonkeyPatch, outcome: Outcome, *lines: tuple[int, str], late: bool = False
) -> None:
    """`run` does nothing but say these lines and end so."""

    def run(_commands: Any, _job: Any, _launch_id: str, audience: Audience) -> Outcome:
        for rank, line in lines:
            audience.rank_line(rank, line)
        audience.timed_out = late
        return outcome

    monkeypatch.setattr("vdsgen.launch.hosts.rehearsal.run", run)


class Nothing:
    """In place of a prepared job, of which nothing is looked at."""

    commands = job = launch_id = None


def rehearsed() -> tuple[Rehearsal | None, list[Finding]]:
    return rehearse(Nothing(), TWO, 30, lambda _: None)  # type: ignore[arg-type]


def test_a_rank_that_fails_is_named_with_its_host_and_words(monkeypatch: pytest.MonkeyPatch) -> None:
    death = Death(1, 17, 2 << 8)
    ended(
        monkeypatch, Outcome(2, death, False, None), (1, "[vdsgen] error: no clip is readable"), (0, "noise")
    )
    rehearsal, (found,) = rehearsed()
    assert rehearsal is None
    assert (found.host, found.severity) == ("b", "error")
    assert found.message == "rank 1 failed with code 2:\n    rank 1: error: no clip is readable"


def test_a_rehearsal_that_hangs_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    ended(monkeypatch, Outcome(None, None, False, 15), (0, "[vdsgen] Loading weights."), late=True)
    _, (found,) = rehearsed()
    assert (
        found.message == "two steps were not done within 30 s; the last that was said:\n    Loading weights."
    )
    assert "--rehearsal-seconds" in (found.remedy or "")


def test_an_interrupted_rehearsal_interrupts_everything(monkeypatch: pytest.MonkeyPatch) -> None:
    ended(monkeypatch, Outcome(None, None, False, 2))
    with pytest.raises(InterruptedRehearsalError) as caught:
        rehearsed()
    assert caught.value.exit_code == 130


def test_a_run_without_figures_is_an_error(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    ended(monkeypatch, Outcome(0, None, True, None))
    monkeypatch.setattr(Nothing, "job", type("Job", (), {"output": tmp_path}))
    _, (found,) = rehearsed()
    assert "left no figures" in found.message


def survey() -> Survey:
    broken = facts(devices=(gpu(free_bytes=GIB),))
    return Survey(
        facts={"a": facts(), "b": broken},
        offsets={"a": Offset(0.001, 0.002), "b": Offset(-0.2, 0.002)},
        rates=[
            LinkRate(
                kind="inter_node", first=0, second=1, hosts=("a", "b"),
                bytes_per_second=9e9, planned_bytes_per_second=10e9,
            )
        ],
        findings=[
            Finding(severity="warning", check="limits", host="a", message="few files", remedy="more"),
            Finding(severity="warning", check="limits", host="b", message="few files", remedy="more"),
            Finding(severity="error", check="devices", host="b", message="GPU 0 is used"),
        ],
        seconds={"hosts": 1.0},
    )  # fmt: skip


def test_the_report_tells_the_worst_first_and_the_same_once() -> None:
    report = report_of(TWO, survey(), None, skipped={"rehearsal": "not asked for"}, seconds=3.0)
    assert not report.ready
    assert [(one.severity, one.host) for one in report.findings] == [("error", "b"), ("warning", "a, b")]
    states = {check.name: check.state for check in report.checks}
    assert (states["devices"], states["limits"], states["rehearsal"]) == ("error", "warning", "skipped")
    assert {states[name] for name in ("reach", "versions", "clocks", "disks", "links")} == {"ok"}
    text = text_of(report)
    assert "within 200.0 ms of this machine's (give or take 2.0 ms)" in text
    assert "between nodes 9 GB/s (90% of the plan's 10 GB/s)" in text
    assert "1000 GiB free, 4 checkpoints of 20.0 GiB" in text.replace(",", "", 1) or "1,000 GiB free" in text
    assert "error: b: GPU 0 is used" in text
    assert text.endswith("Not ready: 1 error, 1 warning. 3.0 s.")


def test_what_went_wrong_has_a_line_and_claims_nothing() -> None:
    told = survey()
    told.findings = [
        Finding(severity="error", check=check, host="a", message="no") for check in ("ports", "rehearsal")
    ]
    report = report_of(TWO, told, None, skipped={}, seconds=1.0)
    lines = {check.name: (check.state, check.summary) for check in report.checks}
    assert lines["ports"] == lines["rehearsal"] == ("error", "see below")


def test_hosts_that_do_not_answer_make_a_report_too() -> None:
    silent = Survey(findings=[Finding(severity="error", check="reach", host="a", message="timed out")])
    report = report_of(TWO, silent, None, skipped={"links": "not tried"}, seconds=1.0)
    assert text_of(report).splitlines()[0].split() == ["error", "reach", "0", "of", "2", "hosts", "answered"]


def test_the_rehearsal_is_a_table(tmp_path: Path) -> None:
    rehearsal = read_rehearsal(written(tmp_path, [8 * GIB, 9 * GIB]), TWO, 42.0)
    text = text_of(report_of(TWO, survey(), rehearsal, skipped={}, seconds=3.0))
    assert "0  a                       16.2 GiB     8.0 GiB                  0.49" in text
    assert "steps: 3.00 s; 1.25 s predicted. The first ones are slower" in text


def test_a_run_directory_that_was_not_there_is_not_there_after(tmp_path: Path) -> None:
    run = tmp_path / "runs" / "1"
    with scratch_in(run) as scratch:
        (scratch / "rehearsal").mkdir()
        assert scratch.parent == run
    assert list(tmp_path.iterdir()) == []
    run.mkdir(parents=True)
    (run / "metrics.jsonl").touch()
    with scratch_in(run):
        pass
    assert [path.name for path in run.iterdir()] == ["metrics.jsonl"]


def test_offload_counts_where_ranks_have_it() -> None:
    offloaded = stage(host_bytes=GIB)
    on_cpu = expected(planned("a", stage=offloaded), on_cpu=True)
    assert on_cpu.ranks[0].stage.measured_bytes(on_processor=True) == PLANNED + GIB
