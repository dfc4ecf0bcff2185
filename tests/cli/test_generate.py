"""`vdsgen generate` writes whole directories, or nothing."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tests.cli.rendering import EXPERIMENT, LAB, files_of, generate, run
from vdsgen.render.render import FILES

ONE_POOL = LAB.split("  - name: two")[0]


def test_one_pool_goes_straight_into_the_directory(tmp_path: Path) -> None:
    result = generate(tmp_path, lab=ONE_POOL)
    assert result.exit_code == 0, result.output
    assert sorted(files_of(tmp_path / "out")) == sorted(FILES)
    assert result.stderr == ""
    first, second = result.stdout.splitlines()
    assert first == f"{tmp_path / 'out'}: {', '.join(FILES)}"
    assert second.startswith("  pipeline 1 x data 4, ZeRO-") and "samples/s predicted" in second


def test_several_pools_get_a_folder_each(tmp_path: Path) -> None:
    assert generate(tmp_path).exit_code == 0
    assert {name.split("/")[0] for name in files_of(tmp_path / "out")} == {"four", "two"}
    plan = json.loads((tmp_path / "out" / "two" / "plan.json").read_text())
    assert (plan["pool"], plan["parallel"]["world_size"]) == ("two", 2)


def test_a_chosen_pool_goes_straight_into_the_directory(tmp_path: Path) -> None:
    assert generate(tmp_path, "--pool", "two").exit_code == 0
    assert json.loads((tmp_path / "out" / "plan.json").read_text())["pool"] == "two"


def test_what_is_set_on_the_command_line_is_rendered(tmp_path: Path) -> None:
    result = generate(
        tmp_path,
        "--pool",
        "four",
        "--set",
        "training.seed=7",
        "--set",
        "constraints.pipeline_parallel_size=2",
    )
    assert result.exit_code == 0, result.output
    experiment = yaml.safe_load((tmp_path / "out" / "train.yaml").read_text())
    assert experiment["training"]["seed"] == 7
    config = json.loads((tmp_path / "out" / "ds_config.json").read_text())
    assert config["pipeline"]["stages"] == 2


def test_train_yaml_has_the_model_s_sizes_and_all_defaults(tmp_path: Path) -> None:
    generate(tmp_path, "--pool", "four")
    experiment = yaml.safe_load((tmp_path / "out" / "train.yaml").read_text())
    assert experiment["model"]["family"] == "vdt" and experiment["model"]["depth"] > 0
    assert experiment["training"]["loss_scaling"]["loss_scale_window"] == 2000


def test_generating_twice_changes_nothing(tmp_path: Path) -> None:
    generate(tmp_path)
    before = files_of(tmp_path / "out")
    assert generate(tmp_path).exit_code == 0
    assert files_of(tmp_path / "out") == before


def test_relative_and_absolute_paths_give_the_same_bytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    generate(tmp_path)
    monkeypatch.chdir(tmp_path)
    assert run("generate", "experiment.yaml", "--lab", "lab.yaml", "--out", "again").exit_code == 0
    assert files_of(tmp_path / "again") == files_of(tmp_path / "out")


def test_an_experiment_that_fits_nowhere_writes_nothing(tmp_path: Path) -> None:
    huge = EXPERIMENT.replace("model: vdt-demo", "model: {preset: vdt-demo, depth: 8}").replace(
        "height: 64\n  width: 64", "height: 2048\n  width: 2048"
    )
    tiny = "{memory_gib: 0.05, fp32_tflops: 1.0, memory_bandwidth_gb_per_second: 100.0}"
    result = generate(tmp_path, experiment=huge, lab=ONE_POOL.replace("rtx-3090", tiny))
    assert result.exit_code == 3, result.output
    assert "Traceback" not in result.stderr
    assert not (tmp_path / "out").exists()


def test_a_pool_that_nothing_fits_is_named_and_the_others_are_rendered(tmp_path: Path) -> None:
    tiny = "{memory_gib: 0.05, fp32_tflops: 1.0, memory_bandwidth_gb_per_second: 100.0}"
    result = generate(tmp_path, lab=LAB.replace("rtx-4090", tiny))
    assert result.exit_code == 0, result.output
    assert "warning: " in result.stderr and "two" in result.stderr
    assert {name.split("/")[0] for name in files_of(tmp_path / "out")} == {"four"}


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (["--pool", "three"], ["no pool 'three'", "it has four, two"]),
        (["--set", "training.step=1"], ["steps"]),
        (["--templates", "nowhere"], ["nowhere is no directory"]),
        (["--set", "name={{ 7*7 }}"], ["name"]),
        (["--set", "name='{{ 7*7 }}'"], ["name"]),
        (["--set", 'name="a\\nb"'], ["name"]),
        (["--set", "model=vdt-9b"], ["vdt-9b"]),
    ],
)
def test_bad_input_is_refused_before_anything_is_written(
    tmp_path: Path, more: list[str], words: list[str]
) -> None:
    result = generate(tmp_path, *more)
    assert result.exit_code == 2, result.output
    for word in words:
        assert word in result.stderr
    assert "Traceback" not in result.stderr
    assert not (tmp_path / "out").exists()


def test_a_directory_of_somebody_else_s_is_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.tex").write_text("mine")
    result = generate(tmp_path, lab=ONE_POOL)
    assert result.exit_code == 2
    assert "thesis.tex" in result.stderr
    assert files_of(tmp_path / "out") == {"thesis.tex": b"mine"}


def test_templates_that_replace_nothing_are_warned_of(tmp_path: Path) -> None:
    (tmp_path / "templates").mkdir()
    (tmp_path / "templates" / "plan.md.j2").write_text("typo")
    (tmp_path / "templates" / "PLAN.md.j2").write_text("mine\n")
    result = generate(tmp_path, "--templates", tmp_path / "templates", lab=ONE_POOL)
    assert result.exit_code == 0
    assert "plan.md.j2 replaces no template" in result.stderr
    assert (tmp_path / "out" / "PLAN.md").read_text() == "mine\n"


def test_free_text_is_quoted_wherever_it_goes(tmp_path: Path) -> None:
    videos = "a {{ 7*7 }} $(touch hacked) `id` 'x' \"y\" | z"
    result = generate(tmp_path, experiment=EXPERIMENT.replace("data/clips", json.dumps(videos)), lab=ONE_POOL)
    assert result.exit_code == 0, result.output
    assert yaml.safe_load((tmp_path / "out" / "train.yaml").read_text())["data"]["videos"] == videos
    assert videos in (tmp_path / "out" / "PLAN.md").read_text()
    assert not (tmp_path / "hacked").exists()


def test_the_training_side_is_not_imported(tmp_path: Path) -> None:
    generate(tmp_path)
    program = (
        "import sys\nfrom vdsgen.cli.main import cli\n"
        "try: cli.main(sys.argv[1:], standalone_mode=False)\n"
        "finally: assert not {'torch', 'deepspeed'} & set(sys.modules)"
    )
    arguments = ["generate", "experiment.yaml", "--lab", "lab.yaml", "--out", "other"]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2]), "PYTHONHASHSEED": "77"}
    subprocess.run(
        [sys.executable, "-c", program, *arguments],
        cwd=tmp_path,
        env=environment,
        check=True,
        capture_output=True,
    )
    assert files_of(tmp_path / "other") == files_of(tmp_path / "out")
