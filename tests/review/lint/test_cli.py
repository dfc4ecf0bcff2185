"""`vdsgen lint` as people and programs call it."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from tests.review.lint.lints import GOOD, with_changes
from vdsgen.cli.main import cli
from vdsgen.review.lint.patch import parts

EXAMPLES = Path(__file__).parent.parent.parent.parent / "examples/rendered"


def run(*arguments: str, stdin: bytes | None = None) -> Result:
    return CliRunner().invoke(cli, ["lint", *arguments], input=stdin)


def write(folder: Path, config: dict[str, Any] | str, name: str = "config.json") -> str:
    path = folder / name
    path.write_text(config if isinstance(config, str) else json.dumps(config, indent=2))
    return str(path)


def test_a_good_config_exits_with_0(tmp_path: Path) -> None:
    result = run(write(tmp_path, GOOD), "--world-size", "4")
    assert result.exit_code == 0
    assert result.stdout.endswith("config.json: nothing found (DeepSpeed 0.19.8)\n")


def test_a_finding_exits_with_1_and_shows_its_line(tmp_path: Path) -> None:
    path = write(tmp_path, with_changes({"/dump_stat": False}))
    result = run(path, "--world-size", "4")
    assert result.exit_code == 1
    lines = result.stdout.splitlines()
    assert lines[0].startswith(f"{path}:") and lines[0].endswith("[unknown-key]")
    assert lines[1].endswith('|   "dump_stat": false')
    assert lines[2].endswith("|   ^~~~~~~~~~~")
    assert lines[3] == "  -> did you mean dump_state? (--fix)"
    assert "\x1b" not in result.stdout


def test_notes_alone_exit_with_0(tmp_path: Path) -> None:
    result = run(write(tmp_path, with_changes({"/zero_optimization/reduce_bucket_size": "500"})))
    assert result.exit_code == 0
    assert "1 note" in result.stdout


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"{", ":1:2: no JSON"),
        (b"[]", ":1:1: no JSON: an array"),
        (b"\xff\xfe{}", ":1:1: no JSON: byte 0xff"),
        (b'{"a": ' * 5000, "nested deeper"),
    ],
)
def test_what_is_no_config_exits_with_2_and_its_place(tmp_path: Path, content: bytes, words: str) -> None:
    path = tmp_path / "config.json"
    path.write_bytes(content)
    result = run(str(path))
    assert result.exit_code == 2
    assert result.stderr.startswith(f"error: {path}")
    assert words in result.stderr
    assert "  -> " in result.stderr


@pytest.mark.parametrize("name", ["missing.json", "."])
def test_what_cannot_be_read_exits_with_2(tmp_path: Path, name: str) -> None:
    result = run(str(tmp_path / name))
    assert result.exit_code == 2
    assert "cannot be read" in result.stderr


def test_several_files_and_one_that_is_none(tmp_path: Path) -> None:
    good, bad = write(tmp_path, GOOD), write(tmp_path, "{", "bad.json")
    result = run(good, bad, "--world-size", "4")
    assert result.exit_code == 2
    assert "nothing found" in result.stdout and "bad.json:1:2" in result.stderr


def test_standard_input() -> None:
    result = run("-", "--world-size", "4", stdin=json.dumps(GOOD).encode())
    assert (result.exit_code, result.stdout.split(":")[0]) == (0, "<stdin>")


def test_json_is_one_document(tmp_path: Path) -> None:
    path = write(tmp_path, with_changes({"/amp": {}}))
    result = run(path, "--json", "--world-size", "4")
    document = json.loads(result.stdout)
    [file] = document["files"]
    assert (document["deepspeed"], file["file"], file["errors"]) == ("0.19.8", path, 1)
    [finding] = file["findings"]
    assert (finding["check"], finding["pointer"]) == ("removed-amp", "/amp")
    assert finding["fix"] == [{"op": "remove", "path": "/amp"}]


def test_a_patch_repairs_what_fix_repairs(tmp_path: Path) -> None:
    config = with_changes({"/amp": {}, "/dump_stat": False})
    path = write(tmp_path, config)
    operations = json.loads(run(path, "--patch", "--world-size", "4").stdout)
    assert [operation["op"] for operation in operations] == ["move", "remove"]
    assert all(parts(operation["path"]) for operation in operations)
    result = run(path, "--fix", "--world-size", "4")
    assert (result.exit_code, result.stderr) == (0, f"{path}: 2 changes written\n")
    assert json.loads(Path(path).read_text()) == with_changes({"/dump_state": False})


def test_fix_leaves_the_rest_as_it_is(tmp_path: Path) -> None:
    text = '{\r\n\t"train_batch_size" : 4,  // all\r\n\t"amp": {},\r\n\t"bf16": {"enabled": true}\r\n}'
    path = tmp_path / "config.json"
    path.write_bytes(text.encode())
    run(str(path), "--fix")
    assert path.read_bytes() == text.replace('\t"amp": {},\r\n', "").encode()


def test_fix_writes_nothing_where_nothing_can_be_repaired(tmp_path: Path) -> None:
    path = Path(write(tmp_path, GOOD))
    os.utime(path, (1, 1))
    run(str(path), "--fix", "--world-size", "4")
    assert path.stat().st_mtime == 1


def test_a_config_beside_its_plan_is_compared_with_it(tmp_path: Path) -> None:
    source = EXAMPLES / "article-1.5b@four-24gb"
    for name in ("plan.json", "train.yaml"):
        (tmp_path / name).write_bytes((source / name).read_bytes())
    config = json.loads((source / "ds_config.json").read_text())
    config["zero_optimization"]["stage"] = 2
    result = run(write(tmp_path, config, "ds_config.json"))
    assert result.exit_code == 1
    assert "[departs-from-plan]" in result.stdout
    elsewhere = run(write(tmp_path, config, "other.json"), "--plan", str(tmp_path / "plan.json"))
    assert "[departs-from-plan]" in elsewhere.stdout


@pytest.mark.parametrize("directory", sorted(EXAMPLES.iterdir()), ids=lambda path: path.name)
def test_what_we_render_is_clean(directory: Path) -> None:
    result = run(str(directory / "ds_config.json"))
    assert result.exit_code == 0, result.stdout
