from __future__ import annotations

import json
from pathlib import Path

import pytest

from vdsgen.launch.starts import begin, has_trained, last_step, record_end


@pytest.mark.parametrize(
    ("text", "step"),
    [
        ("", 0),
        ('{"step": 1}\n', 1),
        ('{"step": 1}\n{"step": 2}\n', 2),
        ('{"step": 1}\n{"step": 2}', 1),
        ('{"step": 1}\nrubbish\n[]\n{"step": null}\n', 1),
        ('{"step": 1, "x": "' + "a" * 70_000 + '"}\n{"step": 2}\n', 2),
    ],
)
def test_the_last_whole_line_counts(tmp_path: Path, text: str, step: int) -> None:
    (tmp_path / "metrics.jsonl").write_text(text)
    assert last_step(tmp_path) == step


def test_no_metrics_no_step(tmp_path: Path) -> None:
    assert last_step(tmp_path) == 0


def test_the_trainers_own_entry_is_completed(tmp_path: Path) -> None:
    path = tmp_path / "run.json"
    path.write_text(json.dumps({"layout": 1, "starts": [{"at": "a", "from_step": 0}]}))
    start = begin(tmp_path)
    path.write_text(
        json.dumps({"layout": 1, "starts": [{"at": "a", "from_step": 0}, {"at": "b", "from_step": 5}]})
    )
    record_end(tmp_path, start, "killed", 9)
    content = json.loads(path.read_text())
    assert content["layout"] == 1
    assert content["starts"][0] == {"at": "a", "from_step": 0}
    assert content["starts"][1].items() >= {"from_step": 5, "end": "killed", "reached_step": 9}.items()


def test_a_start_has_trained_once_it_has_made_a_step(tmp_path: Path) -> None:
    metrics, record = tmp_path / "metrics.jsonl", tmp_path / "run.json"
    metrics.write_text('{"step": 9}\n')
    start = begin(tmp_path)
    assert not has_trained(tmp_path, start)
    record.write_text(json.dumps({"starts": [{"from_step": 5}]}))
    assert not has_trained(tmp_path, start), "step 9 is an earlier start's"
    metrics.write_text('{"step": 5}\n{"st')
    assert not has_trained(tmp_path, start)
    metrics.write_text('{"step": 5}\n{"step": 6}\n')
    assert has_trained(tmp_path, start)


@pytest.mark.parametrize("before", [None, "{}", '{"starts": 3}', '{"starts": [1]}', "{"])
def test_a_start_that_came_to_nothing_is_told_too(tmp_path: Path, before: str | None) -> None:
    if before is not None:
        (tmp_path / "run.json").write_text(before)
    record_end(tmp_path, begin(tmp_path), "killed", 0)
    (entry,) = json.loads((tmp_path / "run.json").read_text())["starts"]
    assert entry.items() >= {"from_step": None, "end": "killed", "reached_step": 0}.items()
