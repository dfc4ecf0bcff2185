"""launch.sh, run by bash with a stand-in for `deepspeed` that prints what it was called with."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.render.plans import plan_of, pool_of, small_experiment
from vdsgen.render.render import render_plan
from vdsgen.render.write import write_files
from vdsgen.spec.lab import Gpu, Pool
from vdsgen.spec.plan import PlannedNode

STAND_IN = """#!/bin/sh
printf 'DS_ACCELERATOR=%s CUDA_VISIBLE_DEVICES=%s\\n' "$DS_ACCELERATOR" "$CUDA_VISIBLE_DEVICES"
printf '<%s>' "$@"
exit 7
"""


def rendered(directory: Path, pool: Pool | None = None, **plan: Any) -> Path:
    write_files(directory, render_plan(plan_of(pool=pool, **plan), small_experiment()))
    return directory


def launch(
    directory: Path, *arguments: str, stand_in: bool = True, **environment: str
) -> subprocess.CompletedProcess[str]:
    tools = directory.parent / "tools"
    tools.mkdir(exist_ok=True)
    for name in ("bash", "dirname", "grep", "env"):
        source = next(p for p in (Path("/bin"), Path("/usr/bin")) if (p / name).exists()) / name
        (tools / name).unlink(missing_ok=True)
        (tools / name).symlink_to(source)
    if stand_in:
        (tools / "deepspeed").write_text(STAND_IN)
        (tools / "deepspeed").chmod(0o755)
    return subprocess.run(
        [str(directory / "launch.sh"), *arguments],
        env={"PATH": str(tools), **environment},
        cwd=os.sep,
        capture_output=True,
        text=True,
        check=False,
    )


def test_it_runs_the_trainer_on_its_own_directory_from_anywhere(tmp_path: Path) -> None:
    directory = rendered(tmp_path / "with a space $(touch hacked)")
    result = launch(directory, "my run", "--resume")
    assert result.stdout.splitlines()[1] == (
        f"<--hostfile><><--num_gpus><4><--module><vdsgen.model.train><--plan-dir><{directory}>"
        "<--output><my run><--resume>"
    )
    assert result.returncode == 7, "the training's own exit code"


@pytest.mark.parametrize("arguments", [[], ["--resume"]])
def test_without_a_run_directory_it_says_how_it_is_used(tmp_path: Path, arguments: list[str]) -> None:
    result = launch(rendered(tmp_path / "plan"), *arguments)
    assert result.returncode == 2
    assert result.stderr.startswith("usage: ")


def test_without_deepspeed_it_says_so(tmp_path: Path) -> None:
    result = launch(rendered(tmp_path / "plan"), "run", stand_in=False)
    assert result.returncode == 2
    assert "no deepspeed on PATH" in result.stderr


def test_visible_devices_are_passed_on_because_the_runner_would_drop_them(tmp_path: Path) -> None:
    result = launch(rendered(tmp_path / "plan"), "run", CUDA_VISIBLE_DEVICES="4,5,6,7,8")
    assert "<--hostfile><><--include><localhost:4,5,6,7><--module>" in result.stdout


def test_too_few_visible_devices_are_refused(tmp_path: Path) -> None:
    result = launch(rendered(tmp_path / "plan"), "run", CUDA_VISIBLE_DEVICES="0,1")
    assert result.returncode == 2
    assert "the plan is for 4 GPUs, CUDA_VISIBLE_DEVICES names 0,1" in result.stderr


@pytest.mark.parametrize("gpu", ["cpu", Gpu(fp32_tflops=0.1, memory_bandwidth_gb_per_second=10.0)])
def test_on_a_processor_no_gpu_is_looked_for(tmp_path: Path, gpu: str | Gpu) -> None:
    pool = pool_of(1, 4, gpu=gpu)
    result = launch(rendered(tmp_path / "plan", pool), "run", CUDA_VISIBLE_DEVICES="0")
    assert result.stdout.splitlines()[0] == "DS_ACCELERATOR=cpu CUDA_VISIBLE_DEVICES="
    assert "<--num_gpus><4>" in result.stdout


def test_several_nodes_go_through_the_hostfile(tmp_path: Path) -> None:
    directory = rendered(tmp_path / "plan", pool_of(2, 2, ("node-1", "node-2")))
    assert f"<--hostfile><{directory}/hostfile><--module>" in launch(directory, "run").stdout


def test_several_nodes_without_names_are_refused(tmp_path: Path) -> None:
    result = launch(rendered(tmp_path / "plan", pool_of(2, 2)), "run")
    assert result.returncode == 2
    assert "names no hosts" in result.stderr


def planned_devices(directory: Path) -> Path:
    """A plan for GPUs 2 and 6 of a node of eight."""
    pool = pool_of(1, 8, free_gpus=(2, 6))
    nodes = (PlannedNode(node=0, gpus=8, devices=(6, 2)),)
    return rendered(directory, pool, nodes=nodes, pipeline=1, data=2)


def test_planned_devices_are_named_to_the_runner(tmp_path: Path) -> None:
    directory = planned_devices(tmp_path / "plan")
    assert "<--hostfile><><--include><localhost:2,6><--module>" in launch(directory, "run").stdout
    shown = launch(directory, "run", CUDA_VISIBLE_DEVICES="6,2,0").stdout
    assert "<--include><localhost:2,6>" in shown
    assert (directory / "hostfile").read_text() == "localhost slots=8\n"


def test_planned_devices_that_are_hidden_are_refused(tmp_path: Path) -> None:
    result = launch(planned_devices(tmp_path / "plan"), "run", CUDA_VISIBLE_DEVICES="2,16")
    assert result.returncode == 2
    assert "the plan uses GPU 6, CUDA_VISIBLE_DEVICES names 2,16" in result.stderr
