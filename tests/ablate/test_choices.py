"""From selectors to plans, with the real planner and renderer."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.cli.rendering import EXPERIMENT, LAB, files_of, generate, planning_inputs, run
from vdsgen.ablate.choices import Choices, choose
from vdsgen.ablate.entries import ablation_of
from vdsgen.ablate.planning import Planning
from vdsgen.ablate.selectors import parse_selectors
from vdsgen.errors import InputError
from vdsgen.planner.plan import best_plans, make_plan

GRID = "grid:pipeline_parallel_size=1,2,3;activation_checkpoint_interval=0,1"


@pytest.fixture
def planning(tmp_path: Path) -> Planning:
    return planned(tmp_path)


def planned(
    folder: Path, lab: str = LAB, experiment: str = EXPERIMENT, *, try_anyway: bool = False
) -> Planning:
    opened, resolved, profile = planning_inputs(folder, lab, experiment)
    return Planning(resolved, opened.pools[0], profile, try_anyway)


def chosen(planning: Planning, *selectors: str | Path) -> Choices:
    return choose(parse_selectors([str(selector) for selector in selectors]), planning)


def test_top_is_the_planners_ranking(planning: Planning) -> None:
    found = chosen(planning, "top:3")
    assert [one.plan for one in found.plans] == best_plans(
        planning.experiment, planning.pool, planning.profile, 3
    )
    assert [one.planners_choice for one in found.plans] == [True, False, False]
    assert len({one.name for one in found.plans}) == 3


def test_a_grid_plans_each_point_and_gives_the_planners_reason_for_the_rest(planning: Planning) -> None:
    found = chosen(planning, GRID)
    settings = [
        (one.plan.parallel.pipeline_parallel_size, one.plan.activation_checkpointing.interval)
        for one in found.plans
    ]
    assert settings == [(1, 0), (1, 1), (2, 0), (2, 1)]
    assert [one.asked_for for one in found.refused] == [
        f"grid: pipeline_parallel_size=3, activation_checkpoint_interval={interval}" for interval in (0, 1)
    ]
    assert all("3 does not divide the 4 GPUs of pool four" in one.reason for one in found.refused)


def test_a_point_is_rendered_as_generate_does_with_its_pins(tmp_path: Path, planning: Planning) -> None:
    found = chosen(planning, "grid:pipeline_parallel_size=2;zero_stage=0")
    pins = ("--set", "constraints.pipeline_parallel_size=2", "--set", "constraints.zero_stage=0")
    assert generate(tmp_path, "--pool", "four", *pins).exit_code == 0
    assert dict(found.plans[0].files) == files_of(tmp_path / "out")


def test_a_plan_that_is_asked_for_twice_runs_once(tmp_path: Path, planning: Planning) -> None:
    assert generate(tmp_path, "--pool", "four").exit_code == 0
    best = chosen(planning, "top:1").plans[0].plan
    stages = best.parallel.pipeline_parallel_size
    found = chosen(planning, "top:1", f"grid:pipeline_parallel_size={stages},auto", tmp_path / "out")
    assert [one.asked_for for one in found.plans] == ["top 1"]


def test_an_edited_directory_runs_as_it_is(tmp_path: Path, planning: Planning) -> None:
    assert generate(tmp_path, "--pool", "four", out="mine & yours").exit_code == 0
    path = tmp_path / "mine & yours" / "ds_config.json"
    config = json.loads(path.read_text())
    config["gradient_clipping"] = 0.5
    path.write_text(json.dumps(config))
    found = chosen(planning, "top:1", path.parent)
    plain, edited = found.plans
    assert (plain.edited, edited.edited) == (False, True)
    assert edited.name == "mine-yours"
    assert edited.files["ds_config.json"] == path.read_bytes()
    assert edited.fingerprint != plain.fingerprint


def test_a_directory_for_something_else_is_refused(tmp_path: Path, planning: Planning) -> None:
    other = EXPERIMENT.replace("frames: 8", "frames: 4")
    assert generate(tmp_path, "--pool", "four", experiment=other).exit_code == 0
    with pytest.raises(InputError, match="trains something else than the experiment: data differ"):
        chosen(planning, tmp_path / "out")
    assert generate(tmp_path, "--pool", "two", out="small").exit_code == 0
    small = planned(tmp_path, LAB.replace("gpus_per_node: 4", "gpus_per_node: 1"))
    found = chosen(small, "top:1", tmp_path / "small")
    assert [one.reason for one in found.refused] == ["it needs 2 GPUs, pool four has 1"]


def test_a_directory_for_another_machine_is_not_run(tmp_path: Path, planning: Planning) -> None:
    assert generate(tmp_path, "--pool", "four").exit_code == 0
    hosted = planned(
        tmp_path, LAB.replace("    gpus_per_node: 4", "    hosts: [node-1]\n    gpus_per_node: 4")
    )
    plain = planned(tmp_path, LAB.replace("gpu: rtx-3090", f"gpu: {FP32_ONLY}"))
    for other, reason in ((hosted, "its hosts are not those of pool four: "), (plain, "has no ")):
        (refused,) = chosen(other, "top:1", tmp_path / "out").refused
        assert reason in refused.reason


FP32_ONLY = "{memory_gib: 24, fp32_tflops: 35.6, memory_bandwidth_gb_per_second: 936}"
TIGHT = LAB.replace(
    "gpu: rtx-3090",
    "gpu: {memory_gib: 1.2, fp32_tflops: 35.6, fp16_tflops: 71, memory_bandwidth_gb_per_second: 936}",
)
LARGE = EXPERIMENT.replace("frames: 8", "frames: 32").replace("height: 64", "height: 512")
NEEDY = "grid:activation_checkpoint_interval=0;zero_stage=0"


def test_what_does_not_fit_is_refused_unless_it_is_tried_anyway(tmp_path: Path) -> None:
    careful, bold = (planned(tmp_path, TIGHT, LARGE, try_anyway=anyway) for anyway in (False, True))
    with pytest.raises(InputError, match="no plan fits pool four"):
        chosen(careful, NEEDY)
    plan = chosen(bold, NEEDY).plans[0].plan
    assert max(stage.memory.peak_bytes for stage in plan.stages) > plan.stages[0].capacity_bytes
    assert plan.stages[0].capacity_bytes == int(1.2 * 1024**3)
    assert plan.inputs.pool == bold.pool
    assert plan.activation_checkpointing.interval == 0 and plan.zero.stage == 0


def test_entries_hold_what_the_plan_predicts(planning: Planning) -> None:
    found = chosen(planning, "top:2")
    plans = ablation_of(planning, found, 5).plans
    for entry, choice in zip(plans, found.plans, strict=True):
        predicted = choice.plan.predicted
        assert entry.predicted.step_seconds == predicted.step_seconds
        assert sum(entry.predicted.parts_seconds.values()) == pytest.approx(predicted.step_seconds)
        assert entry.global_batch_size == 8
        assert entry.predicted.peak_memory_bytes_by_stage == tuple(
            stage.memory.peak_bytes - stage.memory.reserve_bytes for stage in choice.plan.stages
        )
        assert len(entry.partition) == choice.plan.parallel.pipeline_parallel_size + 1
    assert plans[0].planners_choice
    assert make_plan(planning.experiment, planning.pool, planning.profile) == found.plans[0].plan


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((), "--report DIR"),
        (("experiment.yaml", "--lab", "lab.yaml"), "--out DIR"),
        (("experiment.yaml", "--report", "x"), "stands alone"),
        (("--report", "nowhere"), "holds no ablation"),
        (("experiment.yaml", "--lab", "lab.yaml", "--out", "o"), "plans are measured on one"),
        (("experiment.yaml", "--lab", "lab.yaml", "--out", "o", "--pool", "x"), "no pool 'x'"),
        (
            ("experiment.yaml", "--lab", "lab.yaml", "--out", "o", "--pool", "four", "--plans", "bad"),
            "--plans: 'bad' is no selector",
        ),
        (
            ("experiment.yaml", "--lab", "lab.yaml", "--out", "o", "--pool", "four"),
            "data.videos: ",
        ),
    ],
)
def test_bad_input_exits_with_2(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...], words: str
) -> None:
    planned(tmp_path)
    monkeypatch.chdir(tmp_path)
    result = run("ablate", *arguments)
    assert result.exit_code == 2, result.output
    assert words in result.output
    assert "Traceback" not in result.output
