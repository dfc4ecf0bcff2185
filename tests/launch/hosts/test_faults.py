"""Two hosts behind a real sshd, and faults that one of them really has."""

from __future__ import annotations

import json
import os
import re
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from click.testing import CliRunner

from tests.launch.backends.sshd import missing_tools
from tests.launch.hosts.faults import fault
from tests.launch.hosts.lab import FIRST, SECOND, TwoHosts, two_hosts
from vdsgen.cli.main import cli
from vdsgen.launch.hosts import ask

SKIP = missing_tools() or ("mounts of its own are made by root only" if os.getuid() else None)
pytestmark = pytest.mark.skipif(SKIP is not None and "VDSGEN_REQUIRE_ALL" not in os.environ, reason=str(SKIP))


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TwoHosts]:
    with two_hosts(tmp_path_factory.mktemp("lab") / "lab") as made:
        yield made


def test_hosts_without_a_fault_are_ready_and_nothing_is_left(lab: TwoHosts) -> None:
    report = lab.look()
    assert report.ready
    assert report.findings == ()
    assert set(report.hosts) == {FIRST, SECOND}
    assert {check.name for check in report.checks if check.state == "ok"} >= {
        "reach", "versions", "rendered directory", "memory", "limits", "disks", "inputs", "shared folder",
        "clocks", "ports",
    }  # fmt: skip
    assert all(abs(seconds) < 1 for seconds in report.clock_offsets_seconds.values())
    assert not lab.run.parent.exists()


@pytest.mark.parametrize(
    "name",
    [
        "run directory not shared",
        "disk too small for checkpoints",
        "port taken",
        "unknown host key",
        "another vdsgen",
        "GPU in use",
    ],
)
def test_a_fault_is_found_and_named_with_its_host(lab: TwoHosts, tmp_path: Path, name: str) -> None:
    one = fault(name)
    with one.inject(lab, tmp_path):
        report = lab.look()
    assert not report.ready
    (found,) = report.findings
    assert (found.check, found.host, found.severity) == (one.check, one.host, one.severity)
    assert one.words in found.message
    assert found.remedy
    assert {check.name: check.state for check in report.checks}["rehearsal"] == "skipped"


def test_a_host_that_hangs_is_given_up(
    lab: TwoHosts, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ask, "OPTIONS", ("-o", "ConnectTimeout=1"))
    began = time.monotonic()
    with fault("host that hangs").inject(lab, tmp_path):
        report = lab.look()
    assert time.monotonic() - began < 15
    assert [(one.check, one.host) for one in report.findings] == [("reach", SECOND)]
    assert "timed out" in report.findings[0].message


def test_a_launch_is_refused_with_everything_at_once(lab: TwoHosts, tmp_path: Path) -> None:
    arguments = ["launch", str(lab.plan), "--output", str(lab.run), "--launcher", "ssh"]
    with ExitStack() as stack:
        for name in ("port taken", "clips missing"):
            stack.enter_context(fault(name).inject(lab, tmp_path))
        result = CliRunner().invoke(cli, arguments)
    assert result.exit_code == 2
    assert result.stderr.count("error: ") == 2
    assert (
        f"error: {SECOND}: data.videos: {lab.clips}: 3 of the files looked at are not as here"
        in result.stderr
    )
    assert f"error: {FIRST}: port {lab.port}, at which ranks meet, is not free" in result.stderr
    assert result.stderr.count("  -> ") == 2
    assert not lab.run.exists()


def test_schedulers_choose_their_hosts_later(lab: TwoHosts) -> None:
    arguments = ["preflight", str(lab.plan), "--output", str(lab.run), "--launcher", "slurm"]
    result = CliRunner().invoke(cli, arguments)
    assert result.exit_code == 2
    assert "slurm gives the job its hosts when it starts" in result.stderr


def test_the_command_says_what_it_found_and_ends_with_1(lab: TwoHosts, tmp_path: Path) -> None:
    arguments = ["preflight", str(lab.plan), "--output", str(lab.run), "--launcher", "ssh", "--no-links"]
    with fault("clips missing").inject(lab, tmp_path):
        told = CliRunner().invoke(cli, arguments)
        document = CliRunner().invoke(cli, [*arguments, "--json"])
    assert (told.exit_code, document.exit_code) == (1, 1)
    assert told.stderr == f"Asking {FIRST}, {SECOND} ...\n"
    assert re.search(r"^  error +inputs", told.stdout, re.MULTILINE)
    assert f"error: {SECOND}: data.videos" in told.stdout
    assert "Not ready: 1 error. " in told.stdout
    report = json.loads(document.stdout)
    assert report["ready"] is False
    assert [one["host"] for one in report["findings"]] == [SECOND]


def test_links_between_hosts_are_measured(lab: TwoHosts) -> None:
    report = lab.look(links=True)
    assert report.ready
    assert [(one.kind, one.hosts) for one in report.links] == [
        ("inter_node", (FIRST, SECOND)),
        ("all_reduce", (FIRST, SECOND)),
    ]
    assert all(one.bytes_per_second > 1e7 == one.planned_bytes_per_second for one in report.links)
