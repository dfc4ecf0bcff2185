"""`vdsgen launch` up to the start of the first rank."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from tests.launch.rendered import render_small
from tests.render.plans import pool_of
from vdsgen.cli.main import cli
from vdsgen.errors import VdsgenError
from vdsgen.launch.preflight import VIDEO_SUFFIXES, check_training_installed
from vdsgen.spec.checkpoints import CheckpointRecord, tag_of
from vdsgen.spec.run import Layout

Launch = Callable[..., Result]


@pytest.fixture
def launch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Launch:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "clips").mkdir()
    (tmp_path / "clips" / "a.mp4").touch()

    def run(*arguments: str | Path, **environment: str) -> Result:
        extensions = {"TORCH_EXTENSIONS_DIR": str(tmp_path / "extensions")}
        return CliRunner(env=extensions | environment).invoke(cli, ["launch", *map(str, arguments)])

    return run


def complete_checkpoint(run: Path, step: int) -> Path:
    folder = run / "checkpoints" / tag_of(step)
    folder.mkdir(parents=True)
    (folder / "weights.pt").write_bytes(b"weights")
    layout = Layout(
        pipeline_parallel_size=2, data_parallel_size=2, zero_stage=1, partition=(0, 3, 6), dtype="fp32"
    )
    record = CheckpointRecord(step=step, plan_sha256="0", layout=layout, files={"weights.pt": 7})
    (folder / "complete.json").write_text(record.model_dump_json())
    return folder


def test_dry_run_prints_the_command_and_changes_nothing(tmp_path: Path, launch: Launch) -> None:
    awkward = render_small(tmp_path / "plan $(touch hacked) 'x'")
    before = sorted(tmp_path.rglob("*"))
    result = launch(awkward, "--output", "run; touch hacked", "--steps", "3", "--dry-run")
    assert result.exit_code == 0, result.output
    assert "-m deepspeed.launcher.runner" in result.stdout
    assert "--num_gpus 4" in result.stdout
    assert f"--output '{tmp_path}/run; touch hacked' --steps 3" in result.stdout
    assert sorted(tmp_path.rglob("*")) == before


def refused(result: Result, *parts: str) -> None:
    assert result.exit_code == 2, (result.output, result.exception)
    for part in parts:
        assert part in result.stderr, result.stderr


def test_a_directory_that_is_not_rendered_is_refused(tmp_path: Path, launch: Launch) -> None:
    refused(launch("none", "--output", "run"), "none is no directory", "vdsgen generate")
    (tmp_path / "empty").mkdir()
    refused(launch("empty", "--output", "run"), "it has no ds_config.json, plan.json, train.yaml, hostfile")


@pytest.mark.parametrize(
    ("name", "content", "part"),
    [
        ("ds_config.json", "{", "ds_config.json:1:2: no valid JSON"),
        ("ds_config.json", "[]", "should hold a JSON object"),
        ("ds_config.json", "{}", "train_batch_size is None"),
        ("plan.json", '{"schema_version": 1}', "Field required"),
        ("train.yaml", "name: [", "train.yaml"),
        (
            "train.yaml",
            "!!python/object/apply:os.system ['touch hacked']",
            "tag '!!python/object/apply:os.system' is not read",
        ),
        ("hostfile", "localhost\n", "hostfile:1: 'localhost' is no `HOST slots=N`"),
        ("hostfile", "a slots=2\na slots=2\n", "a is there twice"),
        ("hostfile", "localhost slots=3\n", "makes 4 ranks"),
    ],
)
def test_files_that_were_damaged_are_refused(
    tmp_path: Path, launch: Launch, name: str, content: str, part: str
) -> None:
    (render_small(tmp_path / "plan") / name).write_text(content)
    refused(launch("plan", "--output", "run", "--dry-run"), part)
    assert not (tmp_path / "run").exists()
    assert not (tmp_path / "hacked").exists()


def test_batch_sizes_edited_apart_are_refused(tmp_path: Path, launch: Launch) -> None:
    path = render_small(tmp_path / "plan") / "ds_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"train_batch_size": 5}))
    refused(launch("plan", "--output", "run"), "train_batch_size (5) is no multiple of", "1 x 2")


def test_nothing_that_is_there_is_overwritten(tmp_path: Path, launch: Launch) -> None:
    render_small(tmp_path / "plan")
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "thesis.tex").touch()
    refused(launch("plan", "--output", "run"), "run is not empty", "choose a new --output")
    complete_checkpoint(tmp_path / "run", 5)
    refused(launch("plan", "--output", "run"), "or add --resume")
    refused(launch("plan", "--output", "plan/plan.json"), "is a file")


def test_resuming_needs_a_complete_checkpoint(tmp_path: Path, launch: Launch) -> None:
    render_small(tmp_path / "plan")
    refused(launch("plan", "--output", "run", "--resume"), "nothing to resume")
    folder = complete_checkpoint(tmp_path / "run", 5)
    assert launch("plan", "--output", "run", "--resume", "--dry-run").exit_code == 0
    (folder / "weights.pt").write_bytes(b"cut")
    refused(launch("plan", "--output", "run", "--resume"), "weights.pt: 3 bytes, should be 7 bytes")
    (folder / "complete.json").unlink()
    refused(launch("plan", "--output", "run", "--resume"), "half written (no complete.json)")


def test_videos_behind_links_are_found_and_loops_end(tmp_path: Path, launch: Launch) -> None:
    render_small(tmp_path / "plan", videos="linked")
    (tmp_path / "linked").mkdir()
    (tmp_path / "linked" / "loop").symlink_to(tmp_path / "linked")
    (tmp_path / "linked" / ".hidden.mp4").touch()
    refused(launch("plan", "--output", "run"), "no video")
    (tmp_path / "linked" / "there").symlink_to(tmp_path / "clips")
    assert launch("plan", "--output", "run", "--dry-run").exit_code == 0


def test_the_loader_takes_the_same_files_for_videos() -> None:
    video = pytest.importorskip("vdsgen.model.data.video")
    assert video.SUFFIXES == VIDEO_SUFFIXES


def test_folders_without_videos_are_refused(tmp_path: Path, launch: Launch) -> None:
    render_small(tmp_path / "plan", videos="$(touch hacked)")
    refused(launch("plan", "--output", "run"), "data.videos: $(touch hacked): No such file", str(tmp_path))
    (tmp_path / "$(touch hacked)").mkdir()
    refused(launch("plan", "--output", "run"), "no video (.avi")
    assert not (tmp_path / "hacked").exists()
    assert not (tmp_path / "run").exists()


def test_a_folder_that_cannot_be_listed_is_refused(tmp_path: Path, launch: Launch) -> None:
    render_small(tmp_path / "plan", videos="clips/a.mp4")
    refused(launch("plan", "--output", "run"), "data.videos: clips/a.mp4: Not a directory")


def test_a_plan_for_gpus_is_refused_where_there_are_none(tmp_path: Path, launch: Launch) -> None:
    render_small(tmp_path / "plan", pool=pool_of(1, 4), dtype="fp32")
    result = launch("plan", "--output", "run", CUDA_VISIBLE_DEVICES="")
    refused(result, "the plan needs 4 GPUs (pool) on this machine, DeepSpeed finds 0", "DS_ACCELERATOR=cpu")
    assert launch("plan", "--output", "run", "--dry-run", DS_ACCELERATOR="cpu").exit_code == 0


def test_missing_packages_are_named() -> None:
    with pytest.raises(VdsgenError, match=r"not_there_1, not_there_2\n.*pip install not_there_1 not_there_2"):
        check_training_installed(["json", "not_there_1", "not_there_2"])


def test_launching_leaves_torch_alone(tmp_path: Path, launch: Launch) -> None:
    render_small(tmp_path / "plan")
    code = (
        "import sys; from vdsgen.cli.main import cli;"
        "cli.main(['launch', 'plan', '--output', 'run', '--dry-run'], standalone_mode=False);"
        "assert not {'torch', 'deepspeed', 'vdsgen.model'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=True, capture_output=True)
