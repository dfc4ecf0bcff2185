"""What a plan expects of each host."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tests.launch.hosts.lab import render_for
from tests.launch.rendered import render_small
from tests.render.plans import pool_of, small_experiment
from vdsgen.launch.hosts.expected import expected_of, inputs_of, product_of
from vdsgen.launch.preflight import job_of
from vdsgen.spec.calibration import Calibration
from vdsgen.spec.data import Autoencoder, TextEncoder
from vdsgen.spec.lab import Link, NodeGroup, Pool
from vdsgen.spec.plan import PlannedNode
from vdsgen.spec.rendered import read_rendered
from vdsgen.spec.training import Validation
from vdsgen.units import GIB


def expected(directory: Path, *, measure: bool = False, **more: Any) -> Any:
    rendered = read_rendered(directory)
    job = job_of(rendered, directory / "run", steps=None, resume=False, measure=measure, environment={})
    return expected_of(rendered, job, "here", **more)


def test_each_host_has_its_ranks_and_their_stages(tmp_path: Path) -> None:
    slow = Link(bandwidth_gb_per_second=3.0, latency_microseconds=5.0)
    pool = pool_of(2, 2, hosts=("a", "b"), gpu="rtx-3090", inter_node=slow)
    job = expected(render_small(tmp_path / "plan", pool=pool, dtype="fp16"))
    assert [(host.name, [rank.rank for rank in host.ranks]) for host in job.hosts] == [
        ("a", [0, 1]),
        ("b", [2, 3]),
    ]
    assert [rank.device for rank in job.ranks] == [0, 1, 0, 1]
    assert [rank.stage.index for rank in job.ranks] == [0, 0, 1, 1]
    assert {rank.product for rank in job.ranks} == {"NVIDIA GeForce RTX 3090"}
    first = job.hosts[0]
    assert (first.intra_bytes_per_second, first.inter_bytes_per_second) == (25e9, 3e9)
    assert first.memory_bytes == 128 * GIB
    assert job.world_size == 4


def test_only_hosts_of_the_pipelines_ends_read_clips(tmp_path: Path) -> None:
    pool = pool_of(3, 1, hosts=("a", "b", "c"), gpu="cpu")
    job = expected(render_small(tmp_path / "plan", pool=pool, pipeline=3, data=1))
    assert [host.reads_clips for host in job.hosts] == [True, False, True]
    assert [host.loader_bytes > 0 for host in job.hosts] == [True, False, True]


def test_chosen_devices_are_those_of_the_plan(tmp_path: Path) -> None:
    pool = Pool(
        name="p",
        groups=(NodeGroup(gpu="t4", gpus_per_node=2), NodeGroup(gpus=("t4", "rtx-3090", "rtx-3090"))),
        intra_node=Link(bandwidth_gb_per_second=10.0, latency_microseconds=5.0),
        inter_node=Link(bandwidth_gb_per_second=1.0, latency_microseconds=5.0),
        host_memory_gib=64.0,
    )
    nodes = (PlannedNode(node=1, gpus=3, devices=(1, 2)),)
    job = expected(render_small(tmp_path / "plan", pool=pool, pipeline=2, data=1, nodes=nodes, dtype="fp16"))
    assert [rank.device for rank in job.ranks] == [1, 2]
    assert job.hosts[0].name == "localhost"
    assert {rank.product for rank in job.ranks} == {"NVIDIA GeForce RTX 3090"}
    assert product_of(NodeGroup(gpu=pool_of(1, 1).gpu, gpus_per_node=1), 0) is None


def test_a_hostfile_edited_by_hand_may_have_more_hosts_than_the_lab(tmp_path: Path) -> None:
    plan = render_small(tmp_path / "plan", pool=pool_of(1, 4, gpu="rtx-3090"), dtype="fp16")
    (plan / "hostfile").write_text("a slots=2\nb slots=2\n")
    job = expected(plan)
    assert [(host.name, host.first_rank, host.inter_bytes_per_second) for host in job.hosts] == [
        ("a", 0, None),
        ("b", 2, None),
    ]
    few = render_small(tmp_path / "few", pool=pool_of(2, 2, gpu="rtx-3090"), dtype="fp16")
    (few / "hostfile").write_text("a slots=4\n")
    assert [rank.device for rank in expected(few).ranks] == [0, 1, 2, 3]


def test_a_calibrated_link_is_what_was_measured(tmp_path: Path) -> None:
    calibrated = pool_of(1, 4, gpu="cpu", calibration=Calibration(link_bandwidth_gb_per_second=2.0))
    job = expected(render_small(tmp_path / "plan", pool=calibrated))
    assert job.hosts[0].intra_bytes_per_second == 2e9
    assert job.hosts[0].inter_bytes_per_second is None


def test_room_is_for_checkpoints_that_are_still_to_come(tmp_path: Path) -> None:
    (tmp_path / "clips").mkdir()
    plan = render_for(tmp_path / "plan", tmp_path / "clips")
    whole = expected(plan)
    assert whole.checkpoints == 2, "six steps, one every three"
    assert whole.disk_bytes == 2 * whole.checkpoint_bytes
    assert expected(plan, complete_checkpoints=1).checkpoints == 1
    assert expected(plan, measure=True).checkpoints == 0


def test_what_hosts_read_depends_on_their_ranks() -> None:
    experiment = small_experiment(validation=Validation(videos="held"), start_from="weights")
    data = experiment.data.model_copy(
        update={
            "latents": Autoencoder(codec="autoencoder", path="vae", spatial_factor=8, channels=4),
            "text_encoder": TextEncoder(path="t5"),
        }
    )
    experiment = experiment.model_copy(update={"data": data})
    assert inputs_of(experiment, reads_clips=False) == {"training.start_from": "weights"}
    assert inputs_of(experiment, reads_clips=True) == {
        "data.videos": "data/clips",
        "data.latents.path": "vae",
        "data.text_encoder.path": "t5",
        "training.validation.videos": "held",
        "training.start_from": "weights",
    }
