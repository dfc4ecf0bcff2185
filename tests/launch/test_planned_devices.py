"""Ranks run on exactly the GPUs that a plan names, by DeepSpeed's own launcher."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.launch.rendered import render_small
from tests.launch.test_commands import job, machine
from tests.render.plans import pool_of
from vdsgen.errors import VdsgenError
from vdsgen.launch.backends.deepspeed import training_command
from vdsgen.launch.preflight import job_of
from vdsgen.model.devices import take_planned_device
from vdsgen.spec.lab import NodeGroup, Pool
from vdsgen.spec.plan import PlannedNode
from vdsgen.spec.rendered import read_rendered

SHARED = (PlannedNode(node=0, gpus=8, devices=(6, 2)),)
UNEQUAL = (
    PlannedNode(node=1, host="bee", gpus=4, devices=(3, 0, 2)),
    PlannedNode(node=0, host="ada", gpus=8, devices=(5, 1)),
)
"""Five ranks: the second host's begin at 3, which two does not divide."""


def unequal_pool() -> Pool:
    link, gpu = pool_of(1, 1).intra_node, pool_of(1, 1).gpu
    return Pool(
        name="pool", gpu=gpu, intra_node=link, inter_node=link, host_memory_gib=128.0,
        groups=(
            NodeGroup(hosts=("ada",), gpus_per_node=8, free_gpus=(1, 5)),
            NodeGroup(hosts=("bee",), gpus_per_node=4, free_gpus=(0, 2, 3)),
        ),
    )  # fmt: skip


def test_one_node_is_told_which_of_its_gpus() -> None:
    command = training_command(job(on_cpu=False, world_size=2, devices=((2, 6),)), machine(), "id")
    assert "localhost:2,6" in command.argv
    assert "--num_gpus" not in command.argv
    assert command.environment["CUDA_DEVICE_ORDER"] == "PCI_BUS_ID"


def test_a_scheduler_may_show_more_but_not_less() -> None:
    asked = job(on_cpu=False, world_size=2, devices=((2, 6),))
    more = machine(environment={"CUDA_VISIBLE_DEVICES": "6, 2,7"})
    assert "localhost:2,6" in training_command(asked, more, "id").argv
    less = machine(environment={"CUDA_VISIBLE_DEVICES": "0,2"})
    with pytest.raises(VdsgenError, match="uses GPU 6, CUDA_VISIBLE_DEVICES names 0,2"):
        training_command(asked, less, "id")


def test_several_hosts_are_told_by_name(tmp_path: Path) -> None:
    directory = render_small(tmp_path / "plan", pool=unequal_pool(), nodes=UNEQUAL, pipeline=1, data=5)
    assert (directory / "hostfile").read_text() == "bee slots=4\nada slots=8\n"
    asked = job_of(
        read_rendered(directory), tmp_path / "run", steps=None, resume=False, measure=False, environment={}
    )
    assert asked.devices == ((0, 2, 3), (1, 5))
    argv = training_command(asked, machine(), "id").argv
    assert argv[argv.index("--include") + 1] == "bee:0,2,3@ada:1,5"
    assert "(--include bee:0,2,3@ada:1,5)" in (directory / "launch.sh").read_text()


def test_a_hostfile_of_other_hosts_or_smaller_ones_is_refused(tmp_path: Path) -> None:
    directory = render_small(tmp_path / "plan", pool=unequal_pool(), nodes=UNEQUAL, pipeline=1, data=5)
    for text, message in (
        ("ada slots=8\nbee slots=4\n", "hostfile names ada, bee, plan.json is for bee, ada"),
        ("bee slots=4\nada slots=5\n", r"ada has no GPU 5 \(slots=5\)"),
    ):
        (directory / "hostfile").write_text(text)
        with pytest.raises(VdsgenError, match=message):
            read_rendered(directory)


def test_ranks_on_a_processor_have_no_devices_to_choose_between(tmp_path: Path) -> None:
    nodes = (PlannedNode(node=0, gpus=4, devices=(1, 3)),)
    directory = render_small(
        tmp_path / "plan", pool=pool_of(1, 4, gpu="cpu", free_gpus=(1, 3)), nodes=nodes, pipeline=1, data=2
    )
    assert (directory / "hostfile").read_text() == "localhost slots=2\n"
    rendered = read_rendered(directory)
    asked = job_of(rendered, tmp_path / "run", steps=None, resume=False, measure=False, environment={})
    argv = training_command(asked, machine(), "id").argv
    assert argv[argv.index("--num_gpus") + 1] == "2"
    assert "--include" not in argv


def test_plans_of_plain_pools_leave_the_launchers_choice() -> None:
    environment = {"RANK": "3", "LOCAL_RANK": "1"}
    take_planned_device((), environment)
    assert environment["LOCAL_RANK"] == "1"


WORLD = """
import sys
from deepspeed.launcher.runner import encode_world_info, fetch_hostfile, parse_inclusion_exclusion
print(encode_world_info(parse_inclusion_exclusion(fetch_hostfile(sys.argv[1]), sys.argv[2], "")))
"""
RANK = """
import json, os, sys
from pathlib import Path
from vdsgen.model.devices import take_planned_device
from vdsgen.spec.rendered import read_rendered
take_planned_device(read_rendered(Path(sys.argv[-2])).plan.nodes, os.environ)
shown = [int(device) for device in os.environ["CUDA_VISIBLE_DEVICES"].split(",")]
rank = os.environ["RANK"]
device = shown[int(os.environ["LOCAL_RANK"])]
Path(sys.argv[-1], rank).write_text(json.dumps([device, shown, os.environ["WORLD_SIZE"]]))
"""


@pytest.mark.slow
def test_deepspeeds_launcher_gives_every_rank_its_planned_gpu(tmp_path: Path) -> None:
    """The runner's reading of hostfile and --include, and its launcher on each host, here one by one."""
    directory = render_small(tmp_path / "plan", pool=unequal_pool(), nodes=UNEQUAL, pipeline=1, data=5)
    script, out = tmp_path / "rank.py", tmp_path / "ranks"
    script.write_text(RANK)
    out.mkdir()
    world = subprocess.run(
        [sys.executable, "-c", WORLD, str(directory / "hostfile"), "bee:0,2,3@ada:1,5"],
        capture_output=True, text=True, check=True,
    ).stdout.split()[-1]  # fmt: skip
    for node in (0, 1):
        subprocess.run(
            [sys.executable, "-m", "deepspeed.launcher.launch", f"--world_info={world}",
             f"--node_rank={node}", "--master_addr=127.0.0.1", str(script), str(directory), str(out)],
            capture_output=True, check=True, timeout=120,
        )  # fmt: skip
    ranks = [json.loads((out / str(rank)).read_text()) for rank in range(5)]
    assert [device for device, _, _ in ranks] == [3, 0, 2, 5, 1]
    assert [shown for _, shown, _ in ranks] == [[0, 2, 3]] * 3 + [[1, 5]] * 2
    assert {world_size for _, _, world_size in ranks} == {"5"}
