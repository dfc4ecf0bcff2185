"""`vdsgen verify` on rendered directories: verdicts, refusals, and what was edited by hand."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.cli.rendering import generate, run
from vdsgen.errors import VdsgenError
from vdsgen.spec.rendered import read_rendered
from vdsgen.spec.run import layout_of
from vdsgen.verify.run import notes_on, traced_ranks, verify
from vdsgen.verify.stage import traced_micro_batches

PINNED = ("--pool", "two", "--set", "constraints.pipeline_parallel_size=2")


@pytest.fixture
def plan(tmp_path: Path) -> Path:
    result = generate(tmp_path, *PINNED)
    assert result.exit_code == 0, result.output
    return tmp_path / "out"


def edit(path: Path, **changes: Any) -> None:
    content = json.loads(path.read_text())
    path.write_text(json.dumps({**content, **changes}))


def refused(directory: Path, *stages: int) -> str:
    with pytest.raises(VdsgenError) as caught:
        verify(directory, stages, lambda share: None)
    assert caught.value.exit_code == 2
    return str(caught.value)


def test_what_is_no_rendered_directory_is_refused(tmp_path: Path) -> None:
    assert "is no directory" in refused(tmp_path / "nowhere")
    assert "has no ds_config.json" in refused(tmp_path)


def test_a_stage_that_is_not_there_is_refused(plan: Path) -> None:
    assert "there is no stage 2" in refused(plan, 2)


def test_another_number_of_stages_than_planned_is_refused(plan: Path) -> None:
    edit(plan / "ds_config.json", pipeline={"stages": 1})
    edit(plan / "ds_config.json", train_batch_size=16)
    assert "plan.json has 2 stages, ds_config.json asks for 1" in refused(plan)


def test_offload_that_cannot_be_traced_is_refused_with_the_reason(plan: Path) -> None:
    edit(plan / "ds_config.json", zero_optimization={"stage": 3, "offload_optimizer": {"device": "nvme"}})
    assert "offloads to NVMe (offload_optimizer)" in refused(plan)
    zero = {"stage": 3, "offload_optimizer": {"device": "cpu"}, "offload_param": {"device": "cpu"}}
    edit(plan / "ds_config.json", zero_optimization=zero)
    assert "one rank's parameters" in refused(plan)


@pytest.mark.parametrize("module", ["torch", "deepspeed"])
def test_a_missing_package_is_named_with_the_remedy(
    module: str, plan: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "vdsgen.verify.run.find_spec",
        lambda name: None if name == module else importlib.util.find_spec(name),
    )
    text = refused(plan)
    assert f"needs {module}" in text
    assert "pip install 'vdsgen[train]'" in text


def test_edits_by_hand_are_named(plan: Path) -> None:
    assert notes_on(read_rendered(plan)) == ()
    edit(plan / "ds_config.json", gradient_clipping=7.0)
    train = plan / "train.yaml"
    train.write_text(train.read_text().replace("steps: 100", "steps: 101"))
    clipping, inputs = notes_on(read_rendered(plan))
    assert clipping == "ds_config.json: gradient_clipping is 7.0, the plan says 1.0"
    assert "train.yaml" in inputs


def test_ranks_and_micro_batches_that_are_traced() -> None:
    def layout(stages: int, data: int, zero: int) -> Any:
        return layout_of(
            {
                "train_batch_size": 8 * data,
                "train_micro_batch_size_per_gpu": 1,
                "gradient_accumulation_steps": 8,
                "pipeline": {"stages": stages},
                "zero_optimization": {"stage": zero},
            }
        )

    assert traced_ranks(layout(1, 8, 2)) == (0, 7)
    assert traced_ranks(layout(1, 1, 2)) == (0,)
    assert traced_ranks(layout(2, 8, 1)) == (0,)
    assert traced_micro_batches(layout(1, 8, 2), 8) == 2
    assert traced_micro_batches(layout(4, 1, 0), 8) == 5
    assert traced_micro_batches(layout(4, 1, 0), 3) == 3


def test_the_command_itself_needs_neither_torch_nor_deepspeed() -> None:
    code = (
        "import sys, vdsgen.verify.run, vdsgen.verify.text; print({'torch', 'deepspeed'} & set(sys.modules))"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "set()"


@pytest.mark.slow
def test_verdicts(plan: Path) -> None:
    """A directory as planned, with one figure of its plan changed, and with an engine that refuses."""
    result = run("verify", plan, "--json")
    found = json.loads(result.stdout)
    wrong = [
        (stage["stage"], name, component)
        for stage in found["stages"]
        for name, component in stage["components"].items()
        if not component["within"]
    ]
    assert (result.exit_code, wrong) == (0, [])
    assert [stage["layers"] for stage in found["stages"]] == [
        list(stage.layers) for stage in read_rendered(plan).plan.stages
    ]

    content = json.loads((plan / "plan.json").read_text())
    memory = content["stages"][1]["memory"]
    memory["optimizer_bytes"] = round(memory["optimizer_bytes"] * 1.1)
    (plan / "plan.json").write_text(json.dumps(content))
    result = run("verify", plan, "--stage", "1")
    assert result.exit_code == 1
    assert "NOT within tolerance: optimizer of stage 1." in result.stdout

    zero = json.loads((plan / "ds_config.json").read_text())["zero_optimization"]
    edit(plan / "ds_config.json", zero_optimization={**zero, "stage": 2})
    result = run("verify", plan, "--stage", "0")
    assert result.exit_code == 2
    assert "ZeRO-2 and ZeRO-3 are incompatible with pipeline parallelism" in result.stderr
    assert "Traceback" not in result.stderr
