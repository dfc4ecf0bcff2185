"""`vdsgen launch --resume --replan` up to the command that would be started."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from click.testing import Result

from tests.cli import rendering
from vdsgen.launch import start as starting
from vdsgen.launch.start import Request
from vdsgen.spec.checkpoints import CHECKPOINTS, RECORD, CheckpointRecord, tag_of
from vdsgen.spec.rendered import read_rendered
from vdsgen.spec.run_plans import record_plan

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run of the demo's plan, 2 x 2 ranks, with a checkpoint's record."""
    rendered = read_rendered(EXAMPLES / "rendered" / "cpu-demo@cpu-demo")
    shutil.copytree(rendered.path, tmp_path / "plan")
    folder = tmp_path / "run" / CHECKPOINTS / tag_of(50)
    folder.mkdir(parents=True)
    record = CheckpointRecord(
        step=50, plan_sha256=rendered.plan_sha256, layout=rendered.layout, files={}, sha256={}
    )
    (folder / RECORD).write_text(record.model_dump_json())
    record_plan(tmp_path / "run", rendered.path)
    return tmp_path / "run"


def launch(run: Path, *arguments: str) -> Result:
    return rendering.run("launch", run.parent / "plan", "--output", run, *arguments)


def test_a_plan_for_what_is_left_is_shown_written_and_started(
    run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[Request] = []

    def note(request: Request) -> int:
        started.append(request)
        return 0

    monkeypatch.setattr(starting, "start", note)
    result = launch(run, "--resume", "--replan", "--gpus", "2")
    assert result.exit_code == 0, result.output
    assert "constraints.pipeline_parallel_size, data_parallel_size: planned without" in result.output
    assert "GPUs                             4         2" in result.output
    (request,) = started
    assert request.directory == run / "plans" / "2" and request.resume
    now = read_rendered(request.directory)
    assert now.layout.world_size == 2
    assert now.ds_config["train_batch_size"] == 8
    assert now.layout.dtype == read_rendered(run / "plans" / "1").layout.dtype


def test_a_dry_run_writes_nothing(run: Path) -> None:
    before = sorted(run.rglob("*"))
    result = launch(run, "--resume", "--replan", "--gpus", "1", "--dry-run")
    assert result.exit_code == 0, result.output
    assert f"{run / 'plans' / '2'}: would be written" in result.output
    assert sorted(run.rglob("*")) == before


def test_a_lab_file_and_a_directory_of_ones_own(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(starting, "start", lambda _: 0)
    lab = (EXAMPLES / "labs" / "cpu-demo.yaml").read_text().replace("gpus_per_node: 4", "gpus_per_node: 1")
    (run.parent / "left.yaml").write_text(lab)
    out = run.parent / "smaller"
    result = launch(run, "--resume", "--replan", "--lab", str(run.parent / "left.yaml"), "--out", str(out))
    assert result.exit_code == 0, result.output
    assert read_rendered(out).layout.world_size == 1


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--replan",), "add --resume"),
        (("--resume", "--gpus", "2"), "add --replan"),
        (("--resume", "--replan", "--gpus", "2", "--lab", "x"), "give one of them"),
        (("--resume", "--replan"), "cannot be seen from here"),
        (("--resume", "--replan", "--gpus", "5"), "5 are more"),
    ],
)
def test_what_is_not_said_or_said_twice_is_refused(run: Path, arguments: tuple[str, ...], said: str) -> None:
    result = launch(run, *arguments)
    assert result.exit_code == 2
    assert said in result.output
    assert not (run / "plans" / "2").exists()


def test_a_run_without_a_checkpoint_is_refused_before_anything_is_planned(run: Path) -> None:
    shutil.rmtree(run / CHECKPOINTS)
    result = launch(run, "--resume", "--replan", "--gpus", "2")
    assert result.exit_code == 2 and "no complete checkpoint" in result.output
    assert not (run / "plans" / "2").exists()
