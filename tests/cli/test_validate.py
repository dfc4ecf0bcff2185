"""`vdsgen validate`: what it prints, and what it refuses."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from tests.published.rows import GPT, written
from vdsgen.cli.main import cli


def vdsgen(*arguments: str) -> Result:
    return CliRunner().invoke(cli, ["validate", *arguments])


@pytest.fixture(scope="module")
def measurements(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("rows")
    return written(folder / "two.csv", GPT, {**GPT, "arch": "unet", "model": "SDXL"})


def test_json_is_one_document_on_standard_output(measurements: Path) -> None:
    command = [sys.executable, "-m", "vdsgen", "validate", str(measurements), "--json"]
    run = subprocess.run(command, capture_output=True, text=True, check=False)  # DeepSpeed greets on stdout
    assert run.returncode == 0, run.stderr
    document = json.loads(run.stdout)
    first, second = document["rows"]
    assert first["memory_gib"]["error"] == pytest.approx(
        first["memory_gib"]["predicted"] / first["memory_gib"]["measured"] - 1
    )
    assert second["memory_gib"] == {"not_predicted": "architecture 'unet'"}
    assert document["summary"]["memory"]["compared"] == 1


def test_text_and_markdown_say_the_same(measurements: Path) -> None:
    text, markdown = vdsgen(str(measurements)), vdsgen(str(measurements), "--markdown")
    assert "memory: architecture 'unet'" in text.stdout
    assert "| architecture 'unet' | 1 | 1 |" in markdown.stdout
    assert "2 rows" in text.stdout


def test_rows_can_be_chosen(measurements: Path) -> None:
    assert "1 rows" in vdsgen(str(measurements), "--rows", "3").stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("missing.csv",), "missing.csv"),
        (("--rows", "x"), "is no line and no range"),
        (("--json", "--markdown"), "not both"),
    ],
)
def test_bad_input_ends_with_2_and_no_traceback(arguments: tuple[str, ...], message: str) -> None:
    run = vdsgen(*arguments)
    assert run.exit_code == 2
    assert message in run.output
    assert run.exception is None or isinstance(run.exception, SystemExit)
