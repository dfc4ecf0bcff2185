from __future__ import annotations

from pathlib import Path

import pytest

from vdsgen.launch.aside import main, put_aside


def test_what_a_start_left_gets_another_name(tmp_path: Path) -> None:
    (tmp_path / "metrics.jsonl").write_text("first")
    (tmp_path / "checkpoints" / "step-00000001").mkdir(parents=True)
    (tmp_path / "run.json").touch()
    assert main([str(tmp_path), "2"]) == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "checkpoints.before-restart-2",
        "metrics.jsonl.before-restart-2",
        "run.json",
    ]
    (tmp_path / "metrics.jsonl").write_text("second")
    assert [path.name for path in put_aside(tmp_path, 2)] == ["metrics.jsonl.before-restart-3"]
    assert (tmp_path / "metrics.jsonl.before-restart-2").read_text() == "first"
    assert put_aside(tmp_path, 3) == []


@pytest.mark.parametrize("arguments", [[], ["run"], ["run", "x"], ["run", "1", "2"]])
def test_wrong_use_is_explained(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(arguments) == 2
    assert "usage" in capsys.readouterr().err
