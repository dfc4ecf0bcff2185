"""What Accelerate's own parsers make of a rendered file, and the plans that it cannot do."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from tests.render.plans import plan_of, pool_of, small_experiment
from vdsgen.cli.main import cli
from vdsgen.errors import VdsgenError
from vdsgen.render.engine_config import engine_config
from vdsgen.render.others import render_others
from vdsgen.spec.plan import ActivationCheckpointing, Communication, Plan, PlannedNode, Precision
from vdsgen.spec.training import Ema


def flat(**changes: Any) -> Plan:
    return plan_of(**{"pipeline": 1, "data": 4, "zero_stage": 2, "dtype": "bf16", **changes})


def config(plan: Plan, folder: Path) -> Any:
    """As `accelerate launch --config_file` reads it."""
    parser = pytest.importorskip("accelerate.commands.config.config_args")
    path = folder / "accelerate.yaml"
    path.write_bytes(render_others(["accelerate"], plan, small_experiment())["accelerate.yaml"])
    return parser.load_config_from_file(str(path))


def test_accelerate_reads_what_is_planned(tmp_path: Path) -> None:
    read = config(flat(), tmp_path)
    assert (read.distributed_type.value, read.num_processes, read.num_machines) == ("DEEPSPEED", 4, 1)
    assert read.deepspeed_config["deepspeed_config_file"] == "ds_config.json"
    assert not read.deepspeed_config["zero3_init_flag"]
    assert not read.use_cpu


def test_the_plugin_takes_the_plans_ds_config(tmp_path: Path) -> None:
    dataclasses = pytest.importorskip("accelerate.utils.dataclasses")
    path = tmp_path / "ds_config.json"
    plan = flat(zero_stage=3, accumulation=5)
    path.write_text(json.dumps(engine_config(plan, small_experiment())))
    plugin = dataclasses.DeepSpeedPlugin(hf_ds_config=str(path))
    assert (plugin.zero_stage, plugin.gradient_accumulation_steps) == (3, 5)
    assert plugin.deepspeed_config["bf16"]["enabled"]
    assert config(plan, tmp_path).deepspeed_config["zero3_init_flag"]


def test_several_machines_meet_at_the_first(tmp_path: Path) -> None:
    read = config(flat(data=8, pool=pool_of(2, 4, ("ada", "bee"))), tmp_path)
    assert (read.num_machines, read.num_processes) == (2, 8)
    assert (read.main_process_ip, read.main_process_port, read.rdzv_backend) == ("ada", 29500, "static")


def test_planned_gpus_are_named(tmp_path: Path) -> None:
    nodes = (PlannedNode(node=0, gpus=8, devices=(6, 2)),)
    assert config(flat(data=2, pool=pool_of(1, 8, free_gpus=(2, 6)), nodes=nodes), tmp_path).gpu_ids == "2,6"


@pytest.mark.parametrize(
    ("changes", "part"),
    [
        ({"pipeline": 2, "data": 2, "zero_stage": 1}, "pipeline stages and their partition"),
        ({"data": 2, "tensor": 2, "zero_stage": 1}, "tensor parallelism"),
        ({"data": 2, "sequence": 2}, "sequence parallelism"),
        ({"interval": 3}, "checkpoints of 3 blocks at a time"),
        (
            {"activation_checkpointing": ActivationCheckpointing(interval=1, selective_layers=(2,))},
            "some layers otherwise than others",
        ),
        (
            {"activation_checkpointing": ActivationCheckpointing(interval=1, offload=True)},
            "moving or packing",
        ),
        (
            {"precision": Precision(dtype="bf16", gradient_accumulation_dtype="fp32", moments="int8")},
            "moments in int8",
        ),
        ({"communication": Communication(gradient_compression="int8")}, "gradients compressed"),
    ],
)
def test_what_it_cannot_do_is_named(changes: dict[str, Any], part: str) -> None:
    with pytest.raises(VdsgenError, match=part):
        render_others(["accelerate"], flat(**changes), small_experiment())


def test_everything_that_it_cannot_do_is_named_at_once() -> None:
    with pytest.raises(VdsgenError) as caught:
        render_others(["accelerate"], plan_of(interval=2), small_experiment(ema=Ema()))
    for part in ("pipeline stages", "checkpoints of 2 blocks", "averaged weights"):
        assert part in str(caught.value)


def test_it_is_generated_checked_and_refused_by_the_commands(tmp_path: Path) -> None:
    examples = Path(__file__).parents[2] / "examples"
    arguments = [
        "generate", str(examples / "experiments" / "cpu-demo.yaml"),
        "--lab", str(examples / "labs" / "cpu-demo.yaml"), "--out", str(tmp_path / "out"),
        "--also", "accelerate",
    ]  # fmt: skip
    refused = CliRunner().invoke(cli, [*arguments, "--set", "constraints.pipeline_parallel_size=2"])
    assert refused.exit_code == 2
    assert "Accelerate cannot do what the plan for cpu-demo says: pipeline stages" in refused.stderr
    assert not (tmp_path / "out").exists()
    made = CliRunner().invoke(cli, [*arguments, "--set", "constraints.pipeline_parallel_size=1"])
    assert made.exit_code == 0, made.output
    path = tmp_path / "out" / "accelerate.yaml"
    assert "num_processes: 2" in path.read_text()
    assert CliRunner().invoke(cli, ["check", str(path.parent)]).exit_code == 0
    path.write_text(path.read_text().replace("num_processes: 2", "num_processes: 3"))
    stale = CliRunner().invoke(cli, ["check", str(path.parent)])
    assert stale.exit_code == 1
    assert "accelerate.yaml: edited by hand" in stale.output
