"""The jobs that `vdsgen ci` renders: safe with requests of strangers, and their scripts run as they stand."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.cli.rendering import run
from tests.cli.trees import commit, git, git_environment, repository, tree
from tests.review.ci.service import service
from tests.review.directories import edit
from vdsgen import __version__
from vdsgen.review.ci.jobs import job_files

REVIEW, COMMENT = (yaml.safe_load(text) for text in job_files("github").values())
(GITLAB,) = (yaml.safe_load(text) for text in job_files("gitlab").values())


def steps(workflow: Mapping[Any, Any]) -> list[dict[str, Any]]:
    return [step for job in workflow["jobs"].values() for step in job["steps"]]


def script(workflow: Mapping[Any, Any], name: str) -> str:
    (found,) = [step["run"] for step in steps(workflow) if step.get("name") == name]
    assert isinstance(found, str)
    return found


@pytest.mark.parametrize("workflow", [REVIEW, COMMENT], ids=["review", "comment"])
def test_workflows_are_safe_with_what_strangers_send(workflow: Mapping[Any, Any]) -> None:
    for step in steps(workflow):
        if "uses" in step:
            assert re.fullmatch(r"actions/[a-z-]+@[0-9a-f]{40}", step["uses"]), "pinned by its commit"
        else:
            assert "${{" not in step["run"], "expressions reach scripts through the environment alone"
        if step.get("name") == "Install vdsgen":
            assert f"'vdsgen=={__version__}'" in step["run"]
            assert step["working-directory"] == "${{ runner.temp }}", "no module of the request is in its way"
    assert "pull_request_target" not in workflow[True]


def test_only_the_workflow_that_runs_nothing_of_the_request_may_write() -> None:
    assert REVIEW["permissions"] == {"contents": "read"}
    assert "secrets" not in str(REVIEW)
    (checkout,) = [step for step in steps(REVIEW) if "checkout" in step.get("uses", "")]
    assert checkout["with"] == {"fetch-depth": 0, "persist-credentials": False}
    assert COMMENT["permissions"] == {}
    assert COMMENT["jobs"]["comment"]["permissions"] == {"actions": "read", "pull-requests": "write"}
    assert not [step for step in steps(COMMENT) if "checkout" in step.get("uses", "")]
    assert COMMENT[True]["workflow_run"]["workflows"] == [REVIEW["name"]]


def test_files_are_written_where_the_services_look_for_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run("ci", "github", "--write").exit_code == 0
    assert run("ci", "gitlab", "--write").exit_code == 0
    files = {path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*.yml")}
    assert files == {
        ".github/workflows/vdsgen-review.yml",
        ".github/workflows/vdsgen-comment.yml",
        ".gitlab/vdsgen.yml",
    }
    (tmp_path / ".gitlab/vdsgen.yml").write_text("mine")
    refused = run("ci", "gitlab", "--write")
    assert refused.exit_code == 2 and "says something else" in refused.stderr
    assert "name: vdsgen review" in run("ci", "github").stdout


def bash(text: str, folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """As a runner does: `bash -e`, with vdsgen on PATH."""
    programs = folder.parent / "bin"
    programs.mkdir(exist_ok=True)
    (programs / "vdsgen").write_text(f'#!/bin/sh\nexec "{sys.executable}" -m vdsgen "$@"\n')
    (programs / "vdsgen").chmod(0o755)
    return subprocess.run(
        ["bash", "-eo", "pipefail", "-c", text],
        cwd=folder,
        env={
            **git_environment(),
            "PATH": f"{programs}:{os.environ['PATH']}",
            "PYTHONPATH": str(Path(__file__).resolve().parents[3]),
            **environment,
        },
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


@pytest.fixture(scope="module")
def request_repository(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str, str]:
    """A branch whose experiment changed, and whose directories were not rendered again; base and head."""
    root = repository(tmp_path_factory.mktemp("ci") / "repo")
    tree(root)
    base = commit(root, "base")
    edit(root / "experiments/small.yaml", "steps: 100", "steps: 100\n  seed: 7")
    edit(root / "configs/long/ds_config.json", '"steps_per_print": 100', '"steps_per_print": 7')
    return root, base, commit(root, "request")


def test_the_github_jobs_fail_on_stale_directories_and_comment(
    request_repository: tuple[Path, str, str], tmp_path: Path
) -> None:
    root, base, head = request_repository
    common = {"RUNNER_TEMP": str(tmp_path), "GITHUB_STEP_SUMMARY": str(tmp_path / "summary.md")}
    reviewed = bash(script(REVIEW, "Review"), root, BASE=base, NUMBER="5", **common)
    assert reviewed.returncode == 1, reviewed.stderr
    page = (tmp_path / "review/review.md").read_text()
    assert "2 stale, 1 edited by hand" in page and "steps_per_print" in page
    assert (tmp_path / "summary.md").read_text() == page
    with service() as server:
        server.head = head
        for expected in ("written", "unchanged"):
            commented = bash(
                script(COMMENT, "Comment"),
                tmp_path,
                HEAD=head,
                GITHUB_API_URL=server.url,
                GITHUB_REPOSITORY="lab/configs",
                GITHUB_TOKEN="secret-token",
                **common,
            )
            assert commented.returncode == 0, commented.stderr
            assert commented.stdout == f"pull request 5: comment {expected}\n"
        assert len(server.comments) == 1 and "2 stale" in server.comments[0]["body"]


def test_the_gitlab_job_fails_on_stale_directories_and_comments_where_it_has_a_token(
    request_repository: tuple[Path, str, str],
) -> None:
    root, base, _ = request_repository
    (text,) = GITLAB["vdsgen review"]["script"]
    with service() as server:
        done = bash(
            text,
            root,
            CI_MERGE_REQUEST_DIFF_BASE_SHA=base,
            CI_API_V4_URL=server.url,
            CI_MERGE_REQUEST_PROJECT_ID="12",
            CI_MERGE_REQUEST_IID="5",
            VDSGEN_GITLAB_TOKEN="secret-token",
        )
        assert done.returncode == 1, done.stderr
        assert "comment written" in done.stdout
        assert len(server.comments) == 1
    assert "secret-token" not in done.stdout + done.stderr
    (root / "review.md").unlink()


def test_without_the_base_s_history_it_says_what_to_fetch(
    request_repository: tuple[Path, str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root, base, _ = request_repository
    git(tmp_path, "clone", "--quiet", "--depth=1", f"file://{root}", "shallow")
    monkeypatch.chdir(tmp_path / "shallow")
    result = run("ci", "review", "--base", base, "--out", tmp_path / "review.md", "experiments")
    assert result.exit_code == 2
    assert "fetch-depth" in result.stderr
