"""`vdsgen calibrate`: what it refuses before it measures. tests/profile/test_calibrate.py measures."""

from __future__ import annotations

from pathlib import Path

from click.testing import CliRunner

from vdsgen.cli.main import cli


def test_a_lab_file_needs_the_fragments_file(tmp_path: Path) -> None:
    result = CliRunner().invoke(cli, ["calibrate", "--lab", str(tmp_path / "lab.yaml")])
    assert result.exit_code == 2
    assert "--out" in result.output
    assert not (tmp_path / "lab.yaml").exists()
