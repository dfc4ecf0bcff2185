"""`vdsgen diff` of revisions, ranges and whole trees, in real git repositories."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result

from tests.cli.rendering import run
from tests.cli.trees import commit, git, repository
from tests.render.plans import plan_of, small_experiment
from tests.review.directories import edit, plan_for
from vdsgen.render.render import render_plan

CONFIG = {"train_batch_size": 8, "zero_optimization": {"stage": 1}, "bf16": {"enabled": True}}


@cache
def files(stage: int, rate: float, seed: int, name: str) -> Mapping[str, bytes]:
    experiment = small_experiment(seed=seed, optimizer={"learning_rate": rate})
    experiment = experiment.model_copy(update={"name": name})
    plan = plan_of(pipeline=1, data=4, zero_stage=stage)
    return render_plan(plan_for(experiment, plan), experiment)


def write(path: Path, *, stage: int = 1, rate: float = 1e-4, seed: int = 0, name: str = "small") -> None:
    """A rendered directory."""
    path.mkdir(parents=True, exist_ok=True)
    for file, content in files(stage, rate, seed, name).items():
        (path / file).write_bytes(content)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """main: a, b, deep/c and a plain JSON. feature, from main: a and the JSON changed. main went on: b."""
    root = repository(tmp_path_factory.mktemp("diff") / "repo")
    for index, name in enumerate(("a", "b", "deep/c")):
        write(root / "configs" / name, seed=index, name=f"experiment-{index}")
    (root / "other").mkdir()
    (root / "other/zero.json").write_text(json.dumps(CONFIG))
    (root / "other/package.json").write_text('{"name": "no config", "version": 1}')
    commit(root, "base")
    git(root, "branch", "base")
    git(root, "switch", "--quiet", "--create", "feature")
    write(root / "configs/a", stage=2, name="experiment-0")
    (root / "other/zero.json").write_text(json.dumps({**CONFIG, "zero_optimization": {"stage": 2}}))
    (root / "other/package.json").write_text('{"name": "no config", "version": 2}')
    commit(root, "feature")
    git(root, "switch", "--quiet", "main")
    write(root / "configs/b", rate=3e-4, seed=1, name="experiment-1")
    commit(root, "main goes on")
    git(root, "switch", "--quiet", "feature")
    return root


@pytest.fixture
def repo(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    shutil.copytree(made, tmp_path / "repo")
    monkeypatch.chdir(tmp_path / "repo")
    return tmp_path / "repo"


def document(*arguments: str | Path) -> tuple[Result, dict[str, Any]]:
    result = run("diff", *arguments, "--json")
    assert result.stderr == "", result.stderr
    return result, json.loads(result.stdout)


def paths(found: dict[str, Any]) -> list[str]:
    return [one["path"] for one in found["directories"]]


def keys(found: dict[str, Any]) -> set[str]:
    return {change["key"] for change in found["changes"]}


def test_one_directory_of_a_revision_beside_one_that_lies_here(repo: Path) -> None:
    result, found = document("main:configs/a", "configs/a")
    assert result.exit_code == 1
    assert (found["old"], found["new"]) == ("main:configs/a", "configs/a")
    assert "zero_optimization.stage" in keys(found)
    assert run("diff", "feature:configs/a", "configs/a").exit_code == 0


def test_files_of_a_revision_are_sides_too(repo: Path) -> None:
    result, found = document("main:other/zero.json", "feature:other/zero.json")
    assert result.exit_code == 1
    assert keys(found) == {"zero_optimization.stage"}
    _, found = document("main:other/zero.json", "other/zero.json")
    assert keys(found) == {"zero_optimization.stage"}


def test_two_dots_compare_two_revisions_and_three_what_one_did_since_they_parted(repo: Path) -> None:
    _, found = document("main..feature")
    assert paths(found) == ["configs/a", "configs/b", "other/zero.json"]
    _, found = document("main...feature")
    assert paths(found) == ["configs/a", "other/zero.json"]
    _, found = document("main...")
    assert paths(found) == ["configs/a", "other/zero.json"], "an end that is left out is HEAD"
    _, both = document("main", "feature")
    assert paths(both) == ["configs/a", "configs/b", "other/zero.json"]


def test_paths_narrow_a_range_and_start_where_one_is(repo: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _, found = document("main..feature", "configs/b", "other")
    assert paths(found) == ["configs/b", "other/zero.json"]
    monkeypatch.chdir(repo / "configs")
    _, found = document("main..feature", "a")
    assert "zero_optimization.stage" in keys(found), "one directory: its own diff"
    _, found = document("main:./a", "a")
    assert found["old"] == "main:./a"


def test_a_revision_alone_is_held_against_the_working_tree_without_what_git_ignores(repo: Path) -> None:
    assert run("diff").exit_code == 0
    edit(repo / "configs/deep/c/ds_config.json", '"steps_per_print": 100', '"steps_per_print": 7')
    write(repo / "configs/new")
    write(repo / "scratch/new")
    (repo / ".gitignore").write_text("scratch/\n")
    _, found = document("HEAD")
    assert paths(found) == ["configs/deep/c"]
    assert found["added"] == ["configs/new"]
    assert document("configs")[1]["added"] == ["configs/new"]


def test_directories_that_were_moved_are_paired_by_what_is_in_them(repo: Path) -> None:
    git(repo, "mv", "configs/deep/c", "configs/renamed")
    shutil.move(repo / "configs/b", repo / "configs/b2")
    edit(repo / "configs/b2/ds_config.json", '"steps_per_print": 100', '"steps_per_print": 7')
    shutil.rmtree(repo / "configs/a")
    git(repo, "mv", "other/zero.json", "other/renamed.json")
    result, found = document("HEAD")
    assert result.exit_code == 1
    assert {(one["old"], one["new"]) for one in found["moved"]} == {
        ("configs/deep/c", "configs/renamed"),
        ("other/zero.json", "other/renamed.json"),
    }
    assert [(one["was"], one["path"]) for one in found["directories"]] == [("configs/b", "configs/b2")]
    assert (found["added"], found["removed"]) == ([], ["configs/a"])
    text = run("diff", "HEAD").stdout
    assert "configs/b -> configs/b2, and changed" in text
    assert "Removed  configs/a\n" in text


def test_whole_trees_of_this_machine_are_compared_without_a_repository(tmp_path: Path) -> None:
    for name in ("a", "b"):
        write(tmp_path / "old" / name)
        write(tmp_path / "new" / name, stage=2)
    (tmp_path / "new/b/hostfile").write_text("elsewhere slots=4\n")
    result = run("diff", tmp_path / "old", tmp_path / "new")
    assert result.exit_code == 1
    assert "2 changed\n" in result.stdout
    assert "zero_optimization.stage 1 -> 2 all 2" in " ".join(result.stdout.split())
    assert "all 2" in result.stdout


def test_a_lone_config_is_paired_with_the_directory_that_it_became(tmp_path: Path) -> None:
    (tmp_path / "old/a").mkdir(parents=True)
    (tmp_path / "old/a/ds_config.json").write_text(json.dumps(CONFIG))
    write(tmp_path / "new/a", stage=2)
    _, found = document(tmp_path / "old", tmp_path / "new")
    assert {change["file"] for change in found["changes"]} == {"ds_config.json"}


def test_a_change_of_forty_directories_is_readable_on_one_screen(tmp_path: Path) -> None:
    root = repository(tmp_path / "repo")
    for index in range(40):
        write(root / f"configs/team-{index % 4}/run-{index:02d}")
    commit(root)
    for index in range(40):
        write(
            root / f"configs/team-{index % 4}/run-{index:02d}",
            stage=1 if index == 7 else 2,
            rate=3e-4 if index in (7, 8) else 1e-4,
        )
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        result = run("diff", "HEAD")
        markdown = run("diff", "HEAD", "--format", "markdown").stdout
    lines = result.stdout.splitlines()
    assert result.exit_code == 1
    assert len(lines) <= 30 and max(map(len, lines)) <= 100, result.stdout
    assert "40 changed, in configs/\n" in result.stdout
    (stage,) = [line for line in lines if "zero_optimization.stage" in line and "->" in line]
    assert "1 -> 2" in stage and "39, not team-3/run-07" in stage
    assert "2 of 40 different (optimizer.params.lr): team-0/run-08, team-3/run-07" in result.stdout
    assert "0.0001 -> 0.0003 2: team-0/run-08, team-3/run-07" in " ".join(result.stdout.split())
    assert len(markdown) < 65_536
    assert "| `zero_optimization.stage`" in markdown and "<details><summary>configs/team-0/run-00" in markdown


def test_a_directory_that_cannot_be_read_hides_no_other(repo: Path) -> None:
    (repo / "configs/b/plan.json").write_text("{")
    edit(repo / "configs/a/ds_config.json", '"steps_per_print": 100', '"steps_per_print": 7')
    result = run("diff", "HEAD")
    assert result.exit_code == 2
    assert "configs/b/plan.json:1:2" in result.stdout and "steps_per_print" in result.stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("nowhere..main",), "'nowhere' is no revision"),
        (("main:nowhere", "configs/a"), "main:nowhere: does not exist"),
        (("nowhere:configs/a", "configs/a"), "'nowhere' is no revision"),
        (("--", "--output=stolen..main"), "is no revision"),
        (("--", "--output=stolen"), "is no revision"),
        (("configs/a", "nowhere"), "nowhere: does not exist"),
    ],
)
def test_what_git_does_not_know_is_named(repo: Path, arguments: tuple[str, ...], message: str) -> None:
    result = run("diff", *arguments)
    assert result.exit_code == 2
    assert message in result.stderr
    assert not (repo / "stolen").exists()


def test_histories_without_a_common_commit_have_no_merge_base(repo: Path) -> None:
    git(repo, "switch", "--quiet", "--orphan", "alone")
    commit(repo, "alone")
    result = run("diff", "main...alone")
    assert result.exit_code == 2
    assert "no commit in common" in result.stderr and "fetch-depth" in result.stderr


def test_no_program_that_a_repository_names_is_run(repo: Path) -> None:
    trap = repo / "trap.sh"
    trap.write_text(f'#!/bin/sh\ntouch {repo}/sprung\ncat "$1" 2>/dev/null\n')
    trap.chmod(0o755)
    for key in (
        "core.fsmonitor", "core.pager", "pager.diff", "diff.external", "diff.trap.textconv",
        "diff.trap.command", "filter.trap.clean", "filter.trap.smudge", "core.sshCommand", "core.editor",
        "gpg.program", "core.askPass", "credential.helper",
    ):  # fmt: skip
        git(repo, "config", key, str(trap))
    git(repo, "config", "filter.trap.required", "true")
    for name in ("post-checkout", "post-index-change", "reference-transaction", "fsmonitor-watchman"):
        hook = repo / ".git/hooks" / name
        hook.write_text(trap.read_text())
        hook.chmod(0o755)
    (repo / ".gitattributes").write_text("*.json diff=trap filter=trap\n*.yaml diff=trap filter=trap\n")
    for arguments in (("main..feature",), ("main...feature",), ("HEAD",), ("main:configs/a", "configs/a")):
        assert run("diff", *arguments).exit_code in (0, 1)
    assert run("check", "configs", "--fix").exit_code in (0, 1, 2)
    assert not (repo / "sprung").exists()


def test_a_link_in_a_revision_or_in_the_tree_is_not_followed(repo: Path, tmp_path: Path) -> None:
    secret = tmp_path / "secret.json"
    secret.write_text(json.dumps({**CONFIG, "marker": 1}))
    (repo / "other/link.json").symlink_to(secret)
    result = run("diff", "HEAD")
    assert result.exit_code == 0 and "link.json" not in result.stdout
    commit(repo)
    assert "link.json" not in run("diff", "HEAD~1..HEAD").stdout


def test_names_of_strangers_are_shown_and_not_obeyed(repo: Path) -> None:
    odd = repo / "configs/<img src=x>|`a`\x1b[31m"
    write(odd)
    commit(repo)
    edit(odd / "ds_config.json", '"steps_per_print": 100', '"steps_per_print": 7')
    edit(repo / "configs/a/ds_config.json", '"steps_per_print": 100', '"steps_per_print": 7')
    text = run("diff", "HEAD").stdout
    page = run("diff", "HEAD", "--format", "markdown").stdout
    assert "\x1b" not in text and "\x1b" not in page
    without_code = re.sub(r"(?<!\\)(`+)(?!`).+?(?<!`)\1(?!`)", "", page)
    assert "<img" not in without_code.replace("\\<img", "")
