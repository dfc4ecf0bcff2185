"""torchrun's command line, and a training that runs through it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.launch.test_commands import job, machine
from tests.model.training import launch, render_tiny, train, write_clips
from vdsgen.errors import VdsgenError
from vdsgen.launch.backends.torchrun import commands


def test_one_node_runs_here() -> None:
    (command,) = commands(job(steps=20, resume=True), machine(), "id")
    assert command.argv == (
        "/opt/venv/bin/python", "-m", "torch.distributed.run",
        "--nnodes", "1", "--node-rank", "0", "--nproc-per-node", "4",
        "--master-addr", "127.0.0.1", "--master-port", "23456", "--monitor-interval", "1",
        "--module", "vdsgen.launch.rank", "/lab/runs/1/logs",
        "--plan-dir", "/lab/rendered", "--output", "/lab/runs/1", "--steps", "20", "--resume",
    )  # fmt: skip
    assert command.local_ranks == 4
    assert command.environment["DS_ACCELERATOR"] == "cpu"


def test_torch_reads_what_is_meant() -> None:
    run = pytest.importorskip("torch.distributed.run")
    (command,) = commands(job(steps=3), machine(), "id")
    parsed = run.parse_args(list(command.argv[3:]))
    assert parsed.module
    assert parsed.training_script == "vdsgen.launch.rank"
    assert parsed.training_script_args == list(command.argv[command.argv.index("/lab/runs/1/logs") :])
    assert (parsed.nnodes, parsed.nproc_per_node, parsed.max_restarts) == ("1", "4", 0)


@pytest.mark.parametrize(
    ("devices", "visible", "shown"),
    [
        ((), "5,2,3", "5,2"),
        ((), "GPU-a1,GPU-b2", "GPU-a1,GPU-b2"),
        (((2, 6),), "6,2,7", "2,6"),
        (((2, 6),), "", "2,6"),
    ],
)
def test_ranks_see_the_planned_gpus(devices: tuple[tuple[int, ...], ...], visible: str, shown: str) -> None:
    asked = job(on_cpu=False, world_size=2, devices=devices)
    here = machine(environment={"CUDA_VISIBLE_DEVICES": visible})
    assert commands(asked, here, "id")[0].environment["CUDA_VISIBLE_DEVICES"] == shown


def test_without_a_choice_the_first_gpus_are_used() -> None:
    (command,) = commands(job(on_cpu=False), machine(), "id")
    assert "CUDA_VISIBLE_DEVICES" not in command.environment


def test_too_few_gpus_are_refused() -> None:
    here = machine(environment={"CUDA_VISIBLE_DEVICES": "0,1"})
    with pytest.raises(VdsgenError, match="needs 4 GPUs, CUDA_VISIBLE_DEVICES names 2"):
        commands(job(on_cpu=False), here, "id")


def test_other_hosts_are_refused() -> None:
    with pytest.raises(VdsgenError, match=r"the plan is for n1, n2\n.*--launcher ssh"):
        commands(job(hosts=("n1", "n2"), nodes=2), machine(), "id")


@pytest.mark.slow
def test_a_training_through_torchrun_is_the_same(tmp_path: Path) -> None:
    clips = write_clips(tmp_path / "clips")
    plan = render_tiny(tmp_path / "plan", clips, pipeline=2, data=1, training={"steps": 3})
    finished = launch(plan, tmp_path / "run", "--launcher", "torchrun", "--measure")
    assert finished.code == 0, finished.shown
    assert "step time" in finished.shown
    logs = sorted(path.name.partition("_")[2] for path in (tmp_path / "run" / "logs").glob("*_rank*.log"))
    assert logs == ["rank0.log", "rank1.log"]
    assert train(plan, tmp_path / "other").code == 0
    losses = [
        [json.loads(line)["loss"] for line in (tmp_path / run / "metrics.jsonl").read_text().splitlines()]
        for run in ("run", "other")
    ]
    assert len(losses[0]) == 3
    assert losses[0] == losses[1]
