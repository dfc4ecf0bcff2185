"""`vdsgen report`: what it writes, and what it leaves alone."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from tests.report.subjects import RENDERED
from vdsgen.cli.main import cli

DEMO = str(RENDERED / "cpu-demo@cpu-demo")


def report(*arguments: str | Path) -> Result:
    return CliRunner().invoke(cli, ["report", *map(str, arguments)])


def test_writes_a_page_and_a_trace_and_writes_them_again(tmp_path: Path) -> None:
    out, trace = tmp_path / "plan.html", tmp_path / "plan.json"
    result = report(DEMO, "--out", out, "--trace", trace)
    assert result.exit_code == 0, result.output
    assert result.output == f"wrote {out} and {trace}\n"
    first = out.read_bytes()
    assert first.startswith(b"<!doctype html>")
    assert json.loads(trace.read_bytes())["traceEvents"]
    assert report(DEMO, "--out", out, "--trace", trace).exit_code == 0
    assert out.read_bytes() == first


def test_two_directories_are_one_page_and_three_are_refused(tmp_path: Path) -> None:
    out = tmp_path / "both.html"
    assert report(DEMO, DEMO, "--out", out).exit_code == 0
    assert "A and B are the same plan" in out.read_text()
    result = report(DEMO, DEMO, DEMO, "--out", out)
    assert result.exit_code == 2
    assert "one directory, or two" in result.output


def test_another_file_is_not_overwritten(tmp_path: Path) -> None:
    precious = tmp_path / "thesis.html"
    precious.write_text("<p>years of work")
    result = report(DEMO, "--out", precious)
    assert result.exit_code == 2
    assert "is there, and is no report" in result.output
    assert precious.read_text() == "<p>years of work"
    trace = report(DEMO, "--out", tmp_path / "new.html", "--trace", precious)
    assert trace.exit_code == 2
    link = tmp_path / "link.html"
    link.symlink_to(tmp_path / "elsewhere.html")
    assert "symbolic link" in report(DEMO, "--out", link).output


@pytest.mark.parametrize("name", ["missing", "."])
def test_what_is_no_rendered_directory_is_said_in_a_sentence(tmp_path: Path, name: str) -> None:
    result = report(tmp_path / name, "--out", tmp_path / "out.html")
    assert result.exit_code == 2
    assert "rendered directory" in result.output or "no directory" in result.output
    assert not (tmp_path / "out.html").exists()
