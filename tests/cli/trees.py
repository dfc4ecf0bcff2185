"""Trees of rendered directories with a manifest, in real git repositories."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from tests.cli.rendering import EXPERIMENT, LAB, run

MANIFEST = """\
rendered:
  - experiment: ../experiments/small.yaml
    lab: ../labs/lab.yaml
    out: small
  - experiment: ../experiments/small.yaml
    lab: ../labs/lab.yaml
    out: long
    pools: [four]
    set: [training.steps=200]
"""


def tree(folder: Path) -> Path:
    """experiments/small.yaml, labs/lab.yaml and configs/vdsgen.yaml, rendered; returns configs."""
    for name, text in (
        ("experiments/small.yaml", EXPERIMENT),
        ("labs/lab.yaml", LAB),
        ("configs/vdsgen.yaml", MANIFEST),
    ):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    result = run("generate", "--manifest", folder / "configs/vdsgen.yaml")
    assert result.exit_code == 0, result.stderr
    return folder / "configs"


def git(folder: Path, *arguments: str | Path, **environment: str) -> str:
    """What git prints. No configuration of the machine or of its user counts."""
    result = subprocess.run(
        ["git", *map(str, arguments)],
        cwd=folder,
        env={**git_environment(), **environment},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert result.returncode == 0, f"git {arguments}: {result.stdout}{result.stderr}"
    return result.stdout


def git_environment() -> dict[str, str]:
    return {
        **os.environ,
        "GIT_CONFIG_GLOBAL": os.environ.get("VDSGEN_TEST_GIT_CONFIG", "/dev/null"),
        "GIT_CONFIG_NOSYSTEM": "1",
        "GIT_AUTHOR_NAME": "A",
        "GIT_AUTHOR_EMAIL": "a@example.org",
        "GIT_COMMITTER_NAME": "A",
        "GIT_COMMITTER_EMAIL": "a@example.org",
        "GIT_TERMINAL_PROMPT": "0",
    }


def repository(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    git(folder, "init", "--quiet", "--initial-branch=main")
    return folder


def commit(folder: Path, message: str = "change") -> str:
    """Everything; returns the commit."""
    git(folder, "add", "--all")
    git(folder, "commit", "--quiet", "--allow-empty", "--no-verify", "--message", message)
    return git(folder, "rev-parse", "HEAD").strip()
