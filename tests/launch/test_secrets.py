"""Secrets of the environment stay there: not in rendered files, printed commands, messages or command
lines."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from tests.spec.inputs import EXPERIMENT, LAB
from vdsgen.cli.main import cli

SECRET = "hunter2-0123456789abcdef"
NAMES = (
    "WANDB_API_KEY", "COMET_API_KEY", "HF_TOKEN", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY",
    "AWS_SESSION_TOKEN",
    "NCCL_AUTH_TOKEN", "TORCH_API_KEY", "PYTHON_PASSWORD", "MLFLOW_TRACKING_TOKEN",
)  # fmt: skip


@pytest.fixture
def lab(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in NAMES:
        monkeypatch.setenv(name, SECRET)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "clips").mkdir()
    (tmp_path / "clips" / "a.mp4").touch()
    monitored = EXPERIMENT + "  monitoring:\n    wandb: {project: clips}\n    comet: {project: clips}\n"
    (tmp_path / "experiment.yaml").write_text(monitored)
    hosts = LAB.replace("gpus_per_node: 4", "gpus_per_node: 2\n    nodes: 2\n    inter_node: ethernet-25g")
    (tmp_path / "lab.yaml").write_text(hosts + "    hosts: [ada, bee]\n")
    return tmp_path


def run(*arguments: str) -> Result:
    return CliRunner().invoke(cli, arguments)


def test_nothing_that_is_written_or_printed_has_them(lab: Path) -> None:
    made = run("generate", "experiment.yaml", "--lab", "lab.yaml", "--out", "plan")
    assert made.exit_code == 0, made.output
    said = [
        made.output,
        run("check", "plan").output,
        run("plan", "experiment.yaml", "--lab", "lab.yaml", "--json").output,
    ]
    for launcher in ("deepspeed", "ssh"):
        printed = run("launch", "plan", "--output", "run", "--dry-run", "--launcher", launcher)
        assert printed.exit_code == 0, printed.output
        said.append(printed.output)
    said.append(run("launch", "plan", "--output", "run", "--launcher", "torchrun", "--dry-run").output)
    assert SECRET not in "".join(said)
    for path in lab.rglob("*"):
        assert not path.is_file() or SECRET.encode() not in path.read_bytes(), path
    assert not (lab / "run").exists()


def test_a_run_of_one_host_prints_none_of_them_either(lab: Path) -> None:
    (lab / "lab.yaml").write_text(LAB)
    assert run("generate", "experiment.yaml", "--lab", "lab.yaml", "--out", "plan").exit_code == 0
    for launcher in ("deepspeed", "torchrun"):
        printed = run("launch", "plan", "--output", "run", "--dry-run", "--launcher", launcher)
        assert printed.exit_code == 0, printed.output
        assert SECRET not in printed.output
        assert os.environ["HF_TOKEN"] == SECRET


@pytest.mark.parametrize(
    ("written", "place"),
    [
        ("    wandb: {project: clips, api_key: SECRET}", "training.monitoring.wandb.api_key"),
        ("    comet: {project: clips, token: SECRET}", "training.monitoring.comet.token"),
    ],
)
def test_a_secret_in_an_experiment_is_refused_and_not_repeated(lab: Path, written: str, place: str) -> None:
    text = EXPERIMENT + "  monitoring:\n" + written.replace("SECRET", SECRET) + "\n"
    (lab / "experiment.yaml").write_text(text)
    refused = run("plan", "experiment.yaml", "--lab", "lab.yaml")
    assert refused.exit_code == 2
    assert f"{place}: unknown key" in refused.stderr
    assert "never into a file" in refused.stderr
    assert SECRET not in refused.output


def test_a_password_in_a_path_is_refused_and_not_repeated(lab: Path) -> None:
    text = EXPERIMENT.replace("videos: clips", f"videos: https://lab:{SECRET}@host/clips")
    (lab / "experiment.yaml").write_text(text)
    refused = run("generate", "experiment.yaml", "--lab", "lab.yaml", "--out", "plan")
    assert refused.exit_code == 2
    assert "data.videos: " in refused.stderr
    assert SECRET not in refused.output


def test_lint_warns_of_a_secret_and_masks_it(lab: Path) -> None:
    (lab / "ds.json").write_text(f'{{"train_batch_size": 1, "comet": {{"api_key": "{SECRET}"}}}}')
    found = run("lint", "ds.json")
    assert found.exit_code == 1
    assert "warning: api_key holds a secret" in found.stdout
    for form in ("text", "json", "sarif"):
        assert SECRET not in run("lint", "ds.json", "--format", form).output


def test_check_and_diff_mask_what_somebody_wrote_into_a_rendered_file(lab: Path) -> None:
    for name in ("old", "new"):
        assert run("generate", "experiment.yaml", "--lab", "lab.yaml", "--out", name).exit_code == 0
    config = lab / "new" / "ds_config.json"
    config.write_text(config.read_text().replace('"comet": {', f'"comet": {{\n    "api_key": "{SECRET}",'))
    assert SECRET in config.read_text()
    checked = run("check", "new")
    assert (checked.exit_code, "api_key" in checked.output) == (1, True)
    said = [checked.output] + [
        run("diff", "old", "new", "--format", form).output for form in ("text", "markdown", "json")
    ]
    assert "comet.api_key" in said[1]
    assert SECRET not in "".join(said)
