"""`vdsgen git`: what git itself then shows, and what its hook refuses, in real repositories."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cli.rendering import EXPERIMENT, run
from tests.cli.trees import commit, git, git_environment, repository, tree
from tests.review.directories import edit

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = repository(tmp_path_factory.mktemp("git") / "repo")
    tree(root)
    (root / "plan.json").write_text('{"no": "plan of ours", "version": 1}\n')
    commit(root, "base")
    return root


@pytest.fixture
def repo(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    root = tmp_path / "repo"
    shutil.copytree(made, root)
    monkeypatch.chdir(root)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", str(tmp_path / "gitconfig"))
    monkeypatch.setenv("VDSGEN_TEST_GIT_CONFIG", str(tmp_path / "gitconfig"))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    return root


def render_again(root: Path) -> None:
    """One directory, for a larger batch."""
    (root / "experiments/small.yaml").write_text(
        EXPERIMENT.replace("global_batch_size: 8", "global_batch_size: 16")
    )
    assert run("check", root / "configs/long", "--fix").exit_code == 0


def test_git_shows_a_directory_s_change_once(repo: Path) -> None:
    assert run("git", "install").exit_code == 0
    render_again(repo)
    text = git(repo, "diff")
    assert text.count("Predicted\n") == 1
    assert "old  a/configs/long\nnew  b/configs/long\n" in text
    assert "train_batch_size" in text and "effective batch, clips" in text
    for name in ("ds_config.json", "train.yaml"):
        assert f"configs/long/{name}: follows from plan.json beside it" in text
    assert '"train_batch_size"' not in text, "no line of JSON is shown"
    commit(repo, "larger")
    logged = git(repo, "log", "-1", "-p", "--ext-diff")
    assert logged[logged.index("old  a/") :].split("diff --git")[0] in text
    shown = git(repo, "difftool", "--tool=vdsgen", "HEAD~1", "HEAD", "--", "configs/long/plan.json")
    assert shown.count("Predicted\n") == 1


def test_edits_by_hand_other_files_and_new_ones_are_shown_for_what_they_are(repo: Path) -> None:
    assert run("git", "install").exit_code == 0
    edit(repo / "configs/long/ds_config.json", '"steps_per_print": 100', '"steps_per_print": 7')
    edit(repo / "plan.json", '"version": 1', '"version": 2')
    text = git(repo, "diff")
    assert "old  a/configs/long/ds_config.json" in text and "steps_per_print  100  ->  7" in text
    assert '-{"no": "plan of ours", "version": 1}\n+{"no": "plan of ours", "version": 2}\n' in text
    (repo / "configs/new").mkdir()
    (repo / "configs/new/plan.json").write_text("{}\n")
    git(repo, "add", "configs/new")
    assert "+{}\n" in git(repo, "diff", "--cached")


def test_installing_twice_changes_nothing_and_uninstalling_takes_everything_away(repo: Path) -> None:
    (repo / ".gitattributes").write_text("*.png binary")
    before = git(repo, "config", "--local", "--list")
    for _ in range(2):
        assert run("git", "install", "--hook").exit_code == 0
    lines = (repo / ".gitattributes").read_text().splitlines()
    assert lines[0] == "*.png binary" and lines.count("plan.json diff=vdsgen") == 1
    assert (repo / ".git/hooks/pre-commit").stat().st_mode & 0o111
    assert run("git", "uninstall").exit_code == 0
    assert git(repo, "config", "--local", "--list") == before
    assert (repo / ".gitattributes").read_text() == "*.png binary\n"
    assert not (repo / ".git/hooks/pre-commit").exists()


def test_for_all_repositories_it_goes_into_the_user_s_configuration(repo: Path, tmp_path: Path) -> None:
    assert run("git", "install", "--global").exit_code == 0
    assert "show-file" in git(repo, "config", "--global", "--get", "diff.vdsgen.command")
    assert "plan.json diff=vdsgen" in (tmp_path / "config/git/attributes").read_text()
    assert not (repo / ".gitattributes").exists()
    assert "diff: vdsgen" in git(repo, "check-attr", "diff", "configs/long/plan.json")
    assert run("git", "uninstall", "--global").exit_code == 0
    assert not (tmp_path / "config/git/attributes").exists()


def test_the_hook_refuses_a_commit_of_stale_directories(repo: Path) -> None:
    assert run("git", "install", "--hook").exit_code == 0
    edit(repo / "experiments/small.yaml", "steps: 100", "steps: 100\n  seed: 7")
    git(repo, "add", "--all")
    refused = subprocess.run(
        ["git", "commit", "--message", "stale"],
        cwd=repo, env=git_environment(), capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert refused.returncode == 1
    told = " ".join((refused.stdout + refused.stderr).split())
    assert "small.yaml was changed since: training.seed 0 -> 7" in told
    assert run("check", "configs", "--fix").exit_code == 0
    torn = run("git", "hook", "--staged")
    assert torn.exit_code == 0, "what is staged was not changed again: rendered files are not staged yet"
    git(repo, "add", "--all")
    git(repo, "commit", "--quiet", "--message", "fresh")
    edit(repo / "experiments/small.yaml", "seed: 7", "seed: 8")
    git(repo, "add", "--all")
    edit(repo / "experiments/small.yaml", "seed: 8", "seed: 7")
    torn = run("git", "hook", "--staged")
    assert torn.exit_code == 2 and "changed again since staged" in torn.stderr


def test_the_hook_looks_at_what_files_bear_on_and_at_nothing_else(repo: Path) -> None:
    edit(repo / "configs/long/ds_config.json", '"steps_per_print": 100', '"steps_per_print": 7')
    assert run("git", "hook", "configs/small/four/plan.json").exit_code == 0
    assert run("git", "hook", "README.md", "plan.json").exit_code == 0
    for file in ("configs/long/hostfile", "labs/lab.yaml", "configs/vdsgen.yaml"):
        result = run("git", "hook", file)
        assert result.exit_code == 1, file
        assert "edited by hand" in result.stdout


def test_another_hook_is_left_alone(repo: Path) -> None:
    hook = repo / ".git/hooks/pre-commit"
    hook.parent.mkdir(exist_ok=True)
    hook.write_text("#!/bin/sh\nexit 0\n")
    result = run("git", "install", "--hook")
    assert result.exit_code == 2 and "does something else" in result.stderr
    assert run("git", "uninstall").exit_code == 0
    assert hook.read_text() == "#!/bin/sh\nexit 0\n"


def test_the_pre_commit_framework_finds_a_hook_that_exists() -> None:
    import re

    import yaml

    (hook,) = yaml.safe_load((ROOT / ".pre-commit-hooks.yaml").read_text())
    assert {"id", "name", "entry", "language"} <= hook.keys()
    program, *arguments = hook["entry"].split()
    assert program == "vdsgen" and run(*arguments, "README.md").exit_code == 0
    for path in ("configs/a/plan.json", "plan.json", "experiments/a.yaml", "configs/vdsgen.yaml"):
        assert re.search(hook["files"], path)
    for path in ("package.json", "model/train.py", "docs/plan.jsonx"):
        assert not re.search(hook["files"], path)
    assert sys.version_info >= (3, 11)
