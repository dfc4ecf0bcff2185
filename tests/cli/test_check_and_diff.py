"""`vdsgen check` and `vdsgen diff` on what `vdsgen generate` wrote: exit codes, and what is printed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.cli.rendering import generate, run
from tests.review.directories import edit


@pytest.fixture
def rendered(tmp_path: Path) -> Path:
    assert generate(tmp_path, "--pool", "four").exit_code == 0
    return tmp_path / "out"


def test_what_was_generated_is_fresh(rendered: Path) -> None:
    result = run("check", rendered)
    assert (result.exit_code, result.stdout, result.stderr) == (0, f"{rendered}: fresh\n", "")


def test_check_fails_on_an_edit_and_shows_its_line(rendered: Path) -> None:
    edit(rendered / "ds_config.json", '"lr": 0.0001', '"lr": 0.0009')
    result = run("check", rendered)
    assert result.exit_code == 1
    assert "ds_config.json: edited by hand" in result.stdout
    assert '-      "lr": 0.0009,' in result.stdout


def test_check_fails_where_the_experiment_was_changed_and_not_generated_again(rendered: Path) -> None:
    edit(rendered / "train.yaml", "learning_rate: 0.0001", "learning_rate: 0.0009")
    result = run("check", rendered)
    assert result.exit_code == 1
    assert "train.yaml does not say what was planned for" in result.stdout
    assert "ds_config.json: stale" in result.stdout
    assert '+      "lr": 0.0009,' in result.stdout


def test_check_fails_where_the_pool_was_changed(rendered: Path) -> None:
    edit(rendered / "plan.json", '"gpu": "rtx-3090"', '"gpu": "rtx-4090"')
    result = run("check", rendered)
    assert result.exit_code == 1
    assert "the pool in plan.json is not what was planned for" in result.stdout


def test_check_needs_the_templates_that_were_used(tmp_path: Path) -> None:
    (tmp_path / "templates").mkdir()
    (tmp_path / "templates" / "PLAN.md.j2").write_text("mine\n")
    generate(tmp_path, "--pool", "four", "--templates", tmp_path / "templates")
    assert run("check", tmp_path / "out").exit_code == 1
    assert run("check", tmp_path / "out", "--templates", tmp_path / "templates").exit_code == 0


def test_broken_json_is_named_with_its_line_and_column(rendered: Path) -> None:
    edit(rendered / "plan.json", '"schema_version": 1,', '"schema_version": 1;')
    for arguments in ((rendered,), (rendered, rendered)):
        result = run("check" if len(arguments) == 1 else "diff", *arguments)
        assert result.exit_code == 2
        assert f"{rendered / 'plan.json'}:2:22: no JSON" in result.stderr


@pytest.mark.parametrize("what", ["nowhere", "out/plan.json", "HEAD:out"])
def test_what_is_no_rendered_directory_is_not_checked(rendered: Path, what: str) -> None:
    result = run("check", rendered.parent / what)
    assert result.exit_code == 2
    assert "a rendered directory is needed" in result.stderr


@pytest.mark.parametrize(
    ("what", "said"),
    [
        ("nowhere", "nowhere: does not exist"),
        ("out/train.yaml", "no JSON: no braces around the whole"),
        (".", "is no rendered directory"),
    ],
)
def test_what_is_no_side_is_not_compared(rendered: Path, what: str, said: str) -> None:
    result = run("diff", rendered, rendered.parent / what)
    assert result.exit_code == 2
    assert said in result.stderr


@pytest.mark.parametrize("name", ["plan.json", "ds_config.json"])
def test_a_file_of_a_rendered_directory_stands_for_it(rendered: Path, name: str) -> None:
    result = run("diff", rendered, rendered / name)
    assert (result.exit_code, result.stderr) == (0, "")


def test_a_directory_is_no_different_from_itself(rendered: Path) -> None:
    result = run("diff", rendered, rendered)
    assert result.exit_code == 0
    assert "No difference." in result.stdout


def test_diff_says_what_changed_and_what_follows(tmp_path: Path) -> None:
    generate(tmp_path, "--pool", "four", out="old")
    generate(tmp_path, "--pool", "four", "--set", "constraints.pipeline_parallel_size=2", out="new")
    result = run("diff", tmp_path / "old", tmp_path / "new")
    assert result.exit_code == 1
    assert "ds_config.json  pipeline.stages" in result.stdout
    assert "\nHousekeeping\n  train.yaml  constraints.pipeline_parallel_size" in result.stdout
    assert "peak memory, fullest GPU" in result.stdout


def test_diff_prints_one_json_document_and_nothing_else(tmp_path: Path) -> None:
    generate(tmp_path, "--pool", "four", out="old")
    generate(tmp_path, "--pool", "two", out="new")
    result = run("diff", tmp_path / "old", tmp_path / "new", "--format", "json")
    assert (result.exit_code, result.stderr) == (1, "")
    document = json.loads(result.stdout)
    assert document["predicted"]["new"]["world_size"] == 2
    assert any(change["key"] == "inputs.pool.gpu" for change in document["changes"])


def test_diff_in_markdown_is_made_of_tables(tmp_path: Path) -> None:
    generate(tmp_path, out="both")
    result = run("diff", tmp_path / "both" / "four", tmp_path / "both" / "two", "--format", "markdown")
    assert result.exit_code == 1
    assert result.stdout.startswith("**vdsgen diff** `")
    assert "\n| Predicted " in result.stdout and "\n| Memory " in result.stdout
